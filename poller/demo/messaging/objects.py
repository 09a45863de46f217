"""Object store for attachments and backups, in S3 or in a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from poller.events.service import traced


class ObjectStore(Protocol):
    """Storage of attachments and backups."""

    async def put(self, key: str, content: bytes) -> None:
        """Store an object."""

    async def get(self, key: str) -> bytes | None:
        """Return an object, or None if it does not exist."""

    async def delete(self, key: str) -> None:
        """Delete an object if it exists."""

    async def check(self) -> None:
        """Raise unless objects can be stored."""


class Folder:
    """Objects as files in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @traced("put_object")
    async def put(self, key: str, content: bytes) -> None:
        """Store an object."""
        await asyncio.to_thread(self._write, key, content)

    @traced("get_object")
    async def get(self, key: str) -> bytes | None:
        """Return an object, or None if it does not exist."""
        return await asyncio.to_thread(self._read, key)

    @traced("delete_object")
    async def delete(self, key: str) -> None:
        """Delete an object if it exists."""
        await asyncio.to_thread((self._path / key).unlink, missing_ok=True)

    async def check(self) -> None:
        """Raise unless the folder exists."""
        if not self._path.is_dir():
            raise NotADirectoryError(self._path)

    def _write(self, key: str, content: bytes) -> None:
        file = self._path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def _read(self, key: str) -> bytes | None:
        try:
            return (self._path / key).read_bytes()
        except FileNotFoundError:
            return None


class S3:
    """Objects in an S3 bucket; credentials and region come from the AWS variables and files."""

    def __init__(self, bucket: str, endpoint: str | None) -> None:
        """The bucket exists; `endpoint` is the URL of a store other than Amazon's."""
        from botocore.config import Config
        from botocore.session import get_session

        self._bucket = bucket
        self._client: Any = get_session().create_client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                connect_timeout=2,
                read_timeout=10,
                retries={"mode": "standard"},
                s3={"addressing_style": "path"},
            ),
        )

    async def put(self, key: str, content: bytes) -> None:
        """Store an object."""
        await self._call("put_object", Key=key, Body=content)

    async def get(self, key: str) -> bytes | None:
        """Return an object, or None if it does not exist."""
        return await asyncio.to_thread(self._read, key)

    async def delete(self, key: str) -> None:
        """Delete an object if it exists."""
        await self._call("delete_object", Key=key)

    async def check(self) -> None:
        """Raise unless the bucket answers."""
        await self._call("head_bucket")

    async def _call(self, operation: str, **arguments: Any) -> None:
        await asyncio.to_thread(getattr(self._client, operation), Bucket=self._bucket, **arguments)

    def _read(self, key: str) -> bytes | None:
        try:
            response = self._client.get_object(Bucket=self._bucket, Key=key)
        except self._client.exceptions.NoSuchKey:
            return None
        with response["Body"] as body:
            content: bytes = body.read()
        return content

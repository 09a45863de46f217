"""Object store for attachments and backups, in S3 or in a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from poller.events.service import traced


class ObjectStore(Protocol):
    """Where attachments and backups are."""

    async def put(self, key: str, content: bytes) -> None:
        """Store an object."""

    async def get(self, key: str) -> bytes | None:
        """An object; None where there is none."""

    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""

    async def check(self) -> None:
        """Raise unless objects can be stored."""


class Folder:
    """Objects as files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @traced("put_object")
    async def put(self, key: str, content: bytes) -> None:
        """Store an object."""
        await asyncio.to_thread(self._write, key, content)

    @traced("get_object")
    async def get(self, key: str) -> bytes | None:
        """An object; None where there is none."""
        return await asyncio.to_thread(self._read, key)

    @traced("delete_object")
    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        await asyncio.to_thread((self._path / key).unlink, missing_ok=True)

    async def check(self) -> None:
        """Raise unless the folder is there."""
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
    """Objects in a bucket; credentials and region are those of AWS's own variables and files."""

    def __init__(self, bucket: str, endpoint: str | None) -> None:
        """Use a bucket that exists; `endpoint` is the URL of a store that is not Amazon's."""
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
        await self._ask("put_object", Key=key, Body=content)

    async def get(self, key: str) -> bytes | None:
        """An object; None where there is none."""
        return await asyncio.to_thread(self._read, key)

    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        await self._ask("delete_object", Key=key)

    async def check(self) -> None:
        """Raise unless the bucket answers."""
        await self._ask("head_bucket")

    async def _ask(self, operation: str, **arguments: Any) -> None:
        await asyncio.to_thread(getattr(self._client, operation), Bucket=self._bucket, **arguments)

    def _read(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
        except self._client.exceptions.NoSuchKey:
            return None
        with answer["Body"] as body:
            content: bytes = body.read()
        return content

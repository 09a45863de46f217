"""S3 by moto's server in a separate process."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.session import get_session

from poller.receiver.ports import LOOPBACK, free_ports
from tests.bed.process import Process

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-the-storage",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""The server accepts any credentials."""


@dataclass(frozen=True)
class Bucket:
    """A private bucket, empty at first."""

    endpoint: str
    name: str

    def create(self) -> None:
        self._client().create_bucket(Bucket=self.name)

    def delete(self) -> None:
        """Delete the bucket with its contents."""
        client = self._client()
        for item in client.list_objects_v2(Bucket=self.name).get("Contents", ()):
            client.delete_object(Bucket=self.name, Key=item["Key"])
        client.delete_bucket(Bucket=self.name)

    def names(self) -> set[str]:
        return {item["Key"] for item in self._client().list_objects_v2(Bucket=self.name).get("Contents", ())}

    def _client(self) -> Any:
        return get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Yield the URL of an S3 server for the whole session."""
    (port,) = free_ports(1)
    process = Process([sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)])
    try:
        process.wait_for_line(rf"Running on http://{LOOPBACK}:{port}")
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.close()


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    """Return a bucket for one test."""
    new_bucket = Bucket(s3_endpoint, f"test-{uuid.uuid4().hex}")
    new_bucket.create()
    return new_bucket

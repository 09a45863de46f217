"""Answers of an OTLP receiver, also as google.rpc.Status."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it ships stubs without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed


@dataclass(frozen=True, slots=True)
class CannedAnswer:
    """Answer for both gRPC and HTTP (OTLP specification 1.10, "OTLP/gRPC Response" and HTTP)."""

    grpc: str = "OK"
    """Name of a gRPC status code, for example `RESOURCE_EXHAUSTED`."""
    http: int = 200
    message: str = ""
    retry_after: float | None = None
    """Delay in seconds for a retry: RetryInfo over gRPC, Retry-After (rounded up) over HTTP."""
    rejected: int = 0
    """Number of data points that a partial success rejects; the request itself is accepted."""
    dated: bool = False
    """Over HTTP, send Retry-After as a date instead of a number of seconds."""
    hang: bool = False
    """Do not answer until another answer is set or the receiver stops; then answer UNAVAILABLE."""
    cut: bool = False
    """Close the connection (over gRPC only the call) without an answer, as if it failed in mid-request."""

    @property
    def accepts(self) -> bool:
        return self.grpc == "OK" and not self.hang and not self.cut


ACCEPT = CannedAnswer()
UNAVAILABLE = CannedAnswer("UNAVAILABLE", 503, "the receiver is configured to be unavailable")
INVALID = CannedAnswer("INVALID_ARGUMENT", 400, "the receiver is configured to reject this")
HANG = CannedAnswer(hang=True)
CUT = CannedAnswer(cut=True)


def throttle(seconds: float) -> CannedAnswer:
    """Return the answer of an overloaded receiver, which requests a retry after `seconds`."""
    return CannedAnswer(
        "RESOURCE_EXHAUSTED", 429, "the receiver is configured to be busy", retry_after=seconds
    )


def partial(rejected: int, message: str) -> CannedAnswer:
    """Return the answer of a receiver that accepts the request but rejects `rejected` of its data points."""
    return CannedAnswer(message=message, rejected=rejected)


def status(answer: CannedAnswer) -> Status:
    """Return the google.rpc.Status of an answer, with RetryInfo if it has a retry delay."""
    status = Status(code=grpc.StatusCode[answer.grpc].value[0], message=answer.message)
    if answer.retry_after is not None:
        status.details.add().Pack(retry_info(answer.retry_after))
    return status


def retry_info(seconds: float) -> RetryInfo:
    """Return a RetryInfo message with a delay in seconds."""
    whole = int(seconds)
    return RetryInfo(retry_delay=Duration(seconds=whole, nanos=round((seconds - whole) * 1e9)))

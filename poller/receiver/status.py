"""Word an answer as google.rpc.Status, which OTLP has for whatever is refused."""

from __future__ import annotations

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it ships stubs without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed

from poller.receiver.answers import Answer


def status(answer: Answer) -> Status:
    """The status of an answer, with the time to wait where it names one."""
    status = Status(code=grpc.StatusCode[answer.grpc].value[0], message=answer.message)
    if answer.retry_after is not None:
        status.details.add().Pack(retry_info(answer.retry_after))
    return status


def retry_info(seconds: float) -> RetryInfo:
    """The wish to hear again after so many seconds."""
    whole = int(seconds)
    return RetryInfo(retry_delay=Duration(seconds=whole, nanos=round((seconds - whole) * 1e9)))

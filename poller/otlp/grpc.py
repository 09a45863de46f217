"""gRPC sender for one OTLP request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it ships stubs without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed

from poller.otlp.response import (
    ExportResult,
    classify_accepted,
    classify_error,
    classify_grpc,
    classify_unread,
    printable_text,
)
from poller.otlp.signals import SignalFormat


class GrpcSender:
    """A channel to one collector, opened when a request needs it; sends one request at a time."""

    def __init__(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        timeout: float,
        *,
        form: SignalFormat,
        credentials: Callable[[], Any] | None,
        gzip: bool,
        user_agent: str,
        proxy: str | None = None,
    ) -> None:
        """Prepare without opening a channel; without `credentials` the channel uses plain text.

        `timeout` bounds one request, in seconds. `credentials` is called here and for each channel, so that
        rotated certificate files are read again. An error of the call here is raised; after a later error
        the previous credentials stay in use. `proxy` is the URL of the proxy that gRPC takes from the
        environment, for messages.
        """
        self._target = target
        self._headers = tuple(headers)
        self._timeout = timeout
        self._form = form
        self._credentials = credentials
        self._compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        self._options = (
            ("grpc.primary_user_agent", user_agent),
            # Otherwise a new channel reuses the old connection and its pause of up to two minutes.
            ("grpc.use_local_subchannel_pool", 1),
        )
        self._proxy = proxy
        self._proven = False
        self._given = None if credentials is None else credentials()
        self._channel: grpc.Channel | None = None
        self._closed = False

    def send(self, body: bytes) -> ExportResult:
        """Send an encoded request of the signal; a failure is returned as an ExportResult, not raised."""
        proven = self._proven
        result = self._send(body)
        code = result.error.get("error.type")
        if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            # gRPC would use a silently broken connection for another 15 minutes.
            self.rest()
            if code == "UNAVAILABLE" and proven and result.wait is None:
                # A proxy or firewall may have cut an idle connection that worked before.
                result = self._send(body)
        self._proven = result.disposition == "accepted"
        return result

    def rest(self) -> None:
        """Close the channel until the next request, because it wakes the process several times a second."""
        channel, self._channel, self._proven = self._channel, None, False
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Close the channel and cancel a request in progress; later requests fail."""
        self._closed = True
        if (channel := self._channel) is not None:
            channel.close()

    def _read_credentials(self) -> None:
        if self._credentials is None:
            return
        try:
            self._given = self._credentials()
        except Exception as error:  # noqa: BLE001 - files that are replaced right now raise anything
            self._form.logger.debug("the certificate files cannot be read: %s", printable_text(str(error)))

    def _connected(self) -> grpc.Channel:
        """Return the channel; open it if there is none."""
        channel = self._channel
        if channel is None:
            self._read_credentials()
            options = {"compression": self._compression, "options": self._options}
            if self._given is None:
                channel = grpc.insecure_channel(self._target, **options)
            else:
                channel = grpc.secure_channel(self._target, self._given, **options)
            self._channel = channel
        if self._closed:  # checked after the channel is set, because `close` may run at any time
            channel.close()
        return channel

    def _send(self, body: bytes) -> ExportResult:
        try:
            # Without serializers gRPC passes the bytes unchanged. Otherwise it would report an unreadable
            # answer as INTERNAL, which servers also send for a failed request.
            export = self._connected().unary_unary(self._form.method)
            answer = export(body, timeout=self._timeout, metadata=self._headers)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or ""
            return classify_grpc(code, details, _retry_delay(error), self._proxy)
        except Exception as error:  # noqa: BLE001 - metadata that cannot be sent raise anything
            return classify_error(error, "held")
        try:
            partial = self._form.response.FromString(answer).partial_success
        except DecodeError as error:
            return classify_unread(str(error))
        return classify_accepted(getattr(partial, self._form.rejected), partial.error_message)


def _retry_delay(error: Any) -> float | None:
    """Return the seconds of RetryInfo: from gRPC's standard trailer, else from one that some servers send."""
    trailers = dict(error.trailing_metadata() or ())
    info = RetryInfo()
    try:
        for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
            if detail.Unpack(info):
                return float(info.retry_delay.ToTimedelta().total_seconds())
        if plain := trailers.get("google.rpc.retryinfo-bin"):
            return float(RetryInfo.FromString(plain).retry_delay.ToTimedelta().total_seconds())
    except (DecodeError, OverflowError, ValueError):
        return None
    return None

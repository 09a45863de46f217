"""gRPC sender for one OTLP request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it ships stubs without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed

from poller.otlp import response as verdict
from poller.otlp.response import Verdict
from poller.otlp.signals import Form


class GrpcSender:
    """A channel to one collector, opened when a request needs it; sends one request at a time."""

    def __init__(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        timeout: float,
        *,
        form: Form,
        credentials: Callable[[], Any] | None,
        gzip: bool,
        user_agent: str,
        proxy: str | None = None,
    ) -> None:
        """Open nothing yet; without `credentials` in plain text. `timeout` in seconds bounds a request.

        `credentials` is called here and for each channel, so that rotated certificate files are read again.
        It raises whatever it raises here; later an error keeps the credentials from before. `proxy` is
        the URL of the proxy that gRPC takes from the environment, for messages.
        """
        self._target = target
        self._headers = tuple(headers)
        self._timeout = timeout
        self._form = form
        self._credentials = credentials
        self._compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        self._options = (
            ("grpc.primary_user_agent", user_agent),
            # Else a new channel would find the old one's connection, and its pause of up to two minutes.
            ("grpc.use_local_subchannel_pool", 1),
        )
        self._proxy = proxy
        self._proven = False
        self._given = None if credentials is None else credentials()
        self._channel: grpc.Channel | None = None
        self._closed = False

    def send(self, body: bytes) -> Verdict:
        """Send an encoded request of the signal; raises nothing for the collector's sake."""
        proven = self._proven
        found = self._send(body)
        code = found.error.get("error.type")
        if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            # A connection that has died without a word would go on to be used for a quarter of an hour.
            self.rest()
            if code == "UNAVAILABLE" and proven and found.wait is None:
                # What worked before and lay idle may have been cut by whoever stands between.
                found = self._send(body)
        self._proven = found.fate == "taken"
        return found

    def rest(self) -> None:
        """Close the channel until the next request: an open one wakes the process several times a second."""
        channel, self._channel, self._proven = self._channel, None, False
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """End the channel, and with it a request under way; nothing is sent any more."""
        self._closed = True
        if (channel := self._channel) is not None:
            channel.close()

    def _read_credentials(self) -> None:
        if self._credentials is None:
            return
        try:
            self._given = self._credentials()
        except Exception as error:  # noqa: BLE001 - files that are replaced right now raise anything
            self._form.logger.debug("the certificate files cannot be read: %s", verdict.told(str(error)))

    def _connected(self) -> grpc.Channel:
        """The channel, opened if there is none."""
        channel = self._channel
        if channel is None:
            self._read_credentials()
            options = {"compression": self._compression, "options": self._options}
            if self._given is None:
                channel = grpc.insecure_channel(self._target, **options)
            else:
                channel = grpc.secure_channel(self._target, self._given, **options)
            self._channel = channel
        if self._closed:  # looked at after the channel is set: `close` may run at any point in between
            channel.close()
        return channel

    def _send(self, body: bytes) -> Verdict:
        try:
            # Without serializers the bytes go and come as they are: gRPC would call an answer that cannot be
            # read INTERNAL, which is also a server's word for a request that it did not take.
            export = self._connected().unary_unary(self._form.method)
            answer = export(body, timeout=self._timeout, metadata=self._headers)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or ""
            return verdict.of_grpc(code, details, _retry_delay(error), self._proxy)
        except Exception as error:  # noqa: BLE001 - metadata that cannot be sent raise anything
            return verdict.of_error(error, "held")
        try:
            partial = self._form.response.FromString(answer).partial_success
        except DecodeError as error:
            return verdict.of_unread_answer(str(error))
        return verdict.of_response(getattr(partial, self._form.rejected), partial.error_message)


def _retry_delay(error: Any) -> float | None:
    """The seconds of RetryInfo; gRPC's convention first, then what some servers send instead."""
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

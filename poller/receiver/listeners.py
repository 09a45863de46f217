"""Listen for OTLP metrics on 127.0.0.1: one listener for gRPC, one for HTTP."""

from __future__ import annotations

import contextlib
import gzip
import math
import socket
import ssl
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Literal

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it ships stubs without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from poller.receiver.answers import Answer
from poller.receiver.ports import LOOPBACK

Protocol = Literal["grpc", "http"]
Take = Callable[[Protocol, Mapping[str, str], ExportMetricsServiceRequest], Answer]
"""Called in the thread of a request; what it returns is what the sender is told."""

_SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
_PATH = "/v1/metrics"
_PROTOBUF = "application/x-protobuf"
_LARGEST_BODY = 20 * 1024 * 1024
"""Bytes; the default of the OpenTelemetry Collector's HTTP receiver (max_request_body_size)."""
_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key as PEM files; with `client_ca`, clients must show one of its own."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class GrpcListener:
    """The MetricsService of OTLP on one port."""

    def __init__(self, port: int, tls: Tls | None, take: Take) -> None:
        """Listen; raises OSError where the port is taken."""
        self._take = take
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="otlp-grpc")
        # Two servers on one port would share its connections, and a taken port would go unnoticed.
        self._server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        export = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportMetricsServiceRequest.FromString,
            response_serializer=ExportMetricsServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"Export": export}),)
        )
        address = f"{LOOPBACK}:{port}"
        try:
            bound = (
                self._server.add_insecure_port(address)
                if tls is None
                else self._server.add_secure_port(address, _grpc_credentials(tls))
            )
        except RuntimeError as error:
            self._threads.shutdown()
            raise OSError(f"cannot listen on {address}: {error}") from error
        if bound != port:
            self._threads.shutdown()
            raise OSError(f"cannot listen on {address}")
        self._server.start()

    def stop(self) -> None:
        """Stop listening and cut every connection; the caller has let go of hanging requests."""
        self._server.stop(grace=None).wait()
        self._threads.shutdown()

    def _export(self, request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:
        headers = {key.lower(): str(value) for key, value in context.invocation_metadata()}
        answer = self._take("grpc", headers, request)
        if not answer.accepts:
            if answer.retry_after is not None:
                status = _status(answer)
                # The first is gRPC's convention; the second is what OpenTelemetry's Python exporter reads.
                context.set_trailing_metadata(
                    (
                        ("grpc-status-details-bin", status.SerializeToString()),
                        ("google.rpc.retryinfo-bin", _retry_info(answer.retry_after).SerializeToString()),
                    )
                )
            context.abort(grpc.StatusCode[answer.grpc], answer.message)
        return _response(answer)


class HttpListener:
    """POST /v1/metrics with a protobuf body on one port."""

    def __init__(self, port: int, tls: Tls | None, take: Take) -> None:
        """Listen; raises OSError where the port is taken."""
        self._server = _HttpServer(port, take)
        try:
            if tls is not None:
                # The handshake is left to the first read, in the request's own thread.
                self._server.socket = _ssl_context(tls).wrap_socket(
                    self._server.socket, server_side=True, do_handshake_on_connect=False
                )
            self._thread = threading.Thread(
                target=self._server.serve_forever, args=(0.05,), name="otlp-http", daemon=True
            )
            self._thread.start()
        except BaseException:
            self._server.server_close()
            raise

    def stop(self) -> None:
        """Stop listening and cut every connection; the caller has let go of hanging requests."""
        self._server.shutdown()
        self._thread.join()
        self._server.cut()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the requests' threads

    def __init__(self, port: int, take: Take) -> None:
        self.take = take
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((LOOPBACK, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's would look up our own name, which may ask a name server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End the connections that senders keep open for their next request."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which takes the TLS state away under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a sender that left or failed its handshake; that is its own to report."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def do_POST(self) -> None:
        """Take one request; a body that is no request is answered with 400, 404, 413 or 415."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY:
            self.close_connection = True
            self._reply(Answer("RESOURCE_EXHAUSTED", 413, "the body is too large"))
            return
        body = self.rfile.read(length)
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if self.path != _PATH:
            self._reply(Answer("UNIMPLEMENTED", 404, f"metrics are taken at {_PATH}"))
        elif self.headers.get_content_type() != _PROTOBUF or encoding not in _UNPACK:
            self._reply(Answer("INVALID_ARGUMENT", 415, f"send {_PROTOBUF}, plain, gzip or deflate"))
        else:
            try:
                request = ExportMetricsServiceRequest.FromString(_UNPACK[encoding](body))
            except (DecodeError, EOFError, OSError, zlib.error) as error:
                self._reply(Answer("INVALID_ARGUMENT", 400, f"the body is no OTLP request: {error}"))
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._reply(self.server.take("http", headers, request))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name http.server gives it
        """Write no access log."""

    def _reply(self, answer: Answer) -> None:
        message = _response(answer) if answer.accepts else _status(answer)
        body = message.SerializeToString()
        self.send_response(answer.http)
        self.send_header("Content-Type", _PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        if answer.retry_after is not None:
            self.send_header("Retry-After", str(math.ceil(answer.retry_after)))
        self.end_headers()
        self.wfile.write(body)


def _response(answer: Answer) -> ExportMetricsServiceResponse:
    if not answer.rejected and not answer.message:
        return ExportMetricsServiceResponse()
    return ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(
            rejected_data_points=answer.rejected, error_message=answer.message
        )
    )


def _status(answer: Answer) -> Status:
    status = Status(code=grpc.StatusCode[answer.grpc].value[0], message=answer.message)
    if answer.retry_after is not None:
        status.details.add().Pack(_retry_info(answer.retry_after))
    return status


def _retry_info(seconds: float) -> RetryInfo:
    whole = int(seconds)
    return RetryInfo(retry_delay=Duration(seconds=whole, nanos=round((seconds - whole) * 1e9)))


def _grpc_credentials(tls: Tls) -> Any:
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.client_ca.read_bytes() if tls.client_ca else None,
        require_client_auth=tls.client_ca is not None,
    )


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

"""OTLP listener over HTTP, for Protobuf and JSON."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from google.protobuf.message import DecodeError

from poller.receiver.answers import CannedAnswer, status
from poller.receiver.listener import Take, Tls
from poller.receiver.otlp_json import from_json, to_json
from poller.receiver.signals import KINDS, ExportRequest, SignalKind

_BY_PATH = {kind.path: kind for kind in KINDS}
_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_LARGEST_BODY = 20 * 1024 * 1024
"""Bytes, before and after decompression; default of the OpenTelemetry Collector's HTTP receiver."""
_LONGEST_LINE = 1000
"""Maximum length of a line between chunks, in bytes."""
_MOST_TRAILERS = 100


def _gunzip(body: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        return file.read(_LARGEST_BODY + 1)


def _inflate(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(body, _LARGEST_BODY + 1)
    if not stream.eof and len(unpacked) <= _LARGEST_BODY:
        raise EOFError("the compressed body ends too early")
    return unpacked


_UNPACK: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": _gunzip, "deflate": _inflate}
"""Decoders by content encoding; each returns at most one byte more than the limit."""


class HttpListener:
    """Listener for POST requests to the paths of the three signals, Protobuf or JSON, on one port."""

    def __init__(self, host: str, port: int, tls: Tls | None, take: Take) -> None:
        """Start listening; raises OSError if the port is in use."""
        self._server = _HttpServer(host, port, take)
        try:
            if tls is not None:
                # The first read performs the handshake, in the request's own thread.
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
        """Stop listening and cut every connection; the caller must release hanging requests first."""
        self._server.shutdown()
        self._thread.join()
        self._server.cut()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False  # makes server_close() wait for the request threads

    def __init__(self, host: str, port: int, take: Take) -> None:
        self.take = take
        self._host = host
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, port), _HttpHandler)

    def server_bind(self) -> None:
        # HTTPServer's method would look up the host name, which may query a name server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self._host, int(self.server_address[1])

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
        """Shut down the connections that senders keep open for their next request."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    # SSLSocket's own method would discard the TLS state while another thread reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a sender that disconnected or failed its handshake, because the sender reports that."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def do_POST(self) -> None:
        """Handle one request; an invalid request gets status 400, 404, 413 or 415."""
        try:
            body = self._body()
        except ValueError:
            self.close_connection = True
            self._reply(CannedAnswer("INVALID_ARGUMENT", 400, "the length of the body is invalid"))
            return
        if body is None:
            self._refuse_size()
            return
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        kind = _BY_PATH.get(self.path)
        if kind is None:
            self._reply(
                CannedAnswer("UNIMPLEMENTED", 404, f"the path is unknown; write one of {', '.join(_BY_PATH)}")
            )
        elif self.headers.get_content_type() not in (_PROTOBUF, _JSON) or encoding not in _UNPACK:
            self._reply(
                CannedAnswer("INVALID_ARGUMENT", 415, f"send {_PROTOBUF} or {_JSON}, plain, gzip or deflate")
            )
        else:
            try:
                unpacked = _UNPACK[encoding](body)
                if len(unpacked) > _LARGEST_BODY:
                    self._refuse_size()
                    return
                request = self._parsed(unpacked, kind)
            except (DecodeError, EOFError, OSError, ValueError, zlib.error) as error:
                self._reply(
                    CannedAnswer("INVALID_ARGUMENT", 400, f"the body is not an OTLP request: {error}")
                )
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = self.server.take("http", headers, request)
            if answer.cut:
                self.close_connection = True
            else:
                self._reply(answer, kind)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name given by http.server
        """Write no access log."""

    def _refuse_size(self) -> None:
        self.close_connection = True
        advice = f"send at most {_LARGEST_BODY} bytes, also after decompression"
        self._reply(CannedAnswer("RESOURCE_EXHAUSTED", 413, f"the body is too large; {advice}"))

    def _body(self) -> bytes | None:
        """Return the body, also if chunked (RFC 9112, section 7.1); None if it is too long.

        Raises ValueError if its length or its trailer is invalid.
        """
        if self.headers.get("Transfer-Encoding", "").strip().lower() != "chunked":
            length = _length(self.headers.get("Content-Length") or "0", 10)
            return self.rfile.read(length) if length <= _LARGEST_BODY else None
        body = bytearray()
        while size := _length(self.rfile.readline(_LONGEST_LINE).partition(b";")[0].decode(), 16):
            if len(body) + size > _LARGEST_BODY:
                return None
            body += self.rfile.read(size)
            self.rfile.readline(_LONGEST_LINE)
        for _ in range(_MOST_TRAILERS):
            if not self.rfile.readline(_LONGEST_LINE).strip():
                return bytes(body)
        raise ValueError("the trailer does not end")

    def _parsed(self, body: bytes, kind: SignalKind) -> ExportRequest:
        if self.headers.get_content_type() == _JSON:
            return from_json(body, kind.request)
        return kind.request.FromString(body)

    def _reply(self, answer: CannedAnswer, kind: SignalKind | None = None) -> None:
        message = kind.response(answer) if kind and answer.accepts else status(answer)
        as_json = self.headers.get_content_type() == _JSON
        body = to_json(message) if as_json else message.SerializeToString()
        self.send_response(answer.http)
        self.send_header("Content-Type", _JSON if as_json else _PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        if answer.retry_after is not None:
            seconds = math.ceil(answer.retry_after)
            date = formatdate(math.ceil(time.time()) + seconds, usegmt=True)
            self.send_header("Retry-After", date if answer.dated else str(seconds))
        self.end_headers()
        self.wfile.write(body)


def _length(text: str, base: int) -> int:
    length = int(text, base)
    if length < 0:
        raise ValueError(f"{length} is not a length")
    return length


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

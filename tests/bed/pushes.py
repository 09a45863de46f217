"""A provider of push notifications, whose response depends on the token of the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from poller.receiver.ports import LOOPBACK

ANSWERS = {"quota": 429, "gone": 404, "broken": 500}
"""Status by the prefix of a token; other tokens are accepted."""


class Provider(ThreadingHTTPServer):
    """`tokens` lists the tokens of all requests."""

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.tokens: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/push"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        token = json.loads(self.rfile.read(int(self.headers["content-length"])))["token"]
        assert isinstance(self.server, Provider)
        self.server.tokens.append(token)
        self.send_response(ANSWERS.get(token.partition("-")[0], 200))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server gives it
        """Write no access log."""


@pytest.fixture
def push_provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider
        provider.shutdown()

"""A client of the messaging server that sends, with every request, what must never be told of it."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from poller.demo.messaging.client import Client, ResponseCounts

AGENT = "Mozilla/5.0 (planted; agent)"


@dataclass
class Sent:
    """What clients sent beside their requests."""

    secrets: set[str] = field(default_factory=lambda: {AGENT, "planted-cookie", "planted-referer"})
    """What must not be told."""
    traces: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the trace of each request: the span that it was sent from, and its id."""


class PlantedClient(Client):
    """Each of its requests belongs to a trace of its own."""

    def __init__(self, url: str, responses: ResponseCounts, sent: Sent, address: str) -> None:
        """`address` is where it claims to be."""
        super().__init__(url, responses, self._plant)
        self._sent = sent
        self._address = address
        sent.secrets |= {address, self.password}

    async def request(
        self, method: str, route: str, *, parameters: Mapping[str, object] | None = None, **how: Any
    ) -> httpx.Response:
        """Send one request with a query, and remember what the answer lets it do."""
        query = f"planted-query-{secrets.token_hex(8)}"
        self._sent.secrets.add(query)
        params = {"mail": f"{query}@example.org"}
        answer = await super().request(method, route, parameters=parameters, params=params, **how)
        if answer.is_success and answer.headers.get("content-type") == "application/json":
            told = answer.json()
            if isinstance(told, dict):
                self._sent.secrets |= {told[name] for name in ("access", "refresh", "ticket") if name in told}
        return answer

    async def give_up_an_upload(self) -> None:
        """Begin to upload an attachment, and go away in the midst of it."""
        headers = {**self._plant(), "authorization": f"Bearer {self.access}", "content-length": "1000"}
        lines = [
            "POST /v1/attachments HTTP/1.1",
            f"host: {urlsplit(self.url).netloc}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        at = urlsplit(self.url)
        _, writer = await asyncio.open_connection(at.hostname, at.port)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\nthe beginning")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        self.responses["POST", "/v1/attachments", 499] += 1

    def deaf_socket(self) -> socket.socket:
        """A connection that has next to no room for what is not read."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        at = urlsplit(self.url)
        made.connect((at.hostname, at.port))
        made.setblocking(False)
        return made

    def _plant(self) -> Mapping[str, str]:
        trace, span, request = secrets.token_hex(16), secrets.token_hex(8), str(uuid4())
        self._sent.traces[trace] = span, request
        return {
            "traceparent": f"00-{trace}-{span}-01",
            "x-request-id": request,
            "x-forwarded-for": self._address,
            "user-agent": AGENT,
            "cookie": "session=planted-cookie",
            "referer": "https://planted-referer.example/",
        }

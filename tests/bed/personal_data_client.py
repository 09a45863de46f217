"""A client of the messaging server that sends personal data with every request."""

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
    """Data that clients sent along with their requests."""

    secrets: set[str] = field(default_factory=lambda: {AGENT, "planted-cookie", "planted-referer"})
    """Texts that no signal may contain."""
    traces: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The parent span and the id of each request, by its trace."""


class PersonalDataClient(Client):
    """A client whose requests each belong to their own trace."""

    def __init__(self, url: str, responses: ResponseCounts, sent: Sent, address: str) -> None:
        """`address` is the address that the client claims to have."""
        super().__init__(url, responses, self._plant)
        self._sent = sent
        self._address = address
        sent.secrets |= {address, self.password}

    async def request(
        self, method: str, route: str, *, parameters: Mapping[str, object] | None = None, **how: Any
    ) -> httpx.Response:
        """Send one request with a query, and store the tokens of the response."""
        query = f"planted-query-{secrets.token_hex(8)}"
        self._sent.secrets.add(query)
        params = {"mail": f"{query}@example.org"}
        answer = await super().request(method, route, parameters=parameters, params=params, **how)
        if answer.is_success and answer.headers.get("content-type") == "application/json":
            body = answer.json()
            if isinstance(body, dict):
                self._sent.secrets |= {body[name] for name in ("access", "refresh", "ticket") if name in body}
        return answer

    async def abort_an_upload(self) -> None:
        """Begin to upload an attachment, and disconnect before the end."""
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
        """Return a connection with a very small receive buffer."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        at = urlsplit(self.url)
        connection.connect((at.hostname, at.port))
        connection.setblocking(False)
        return connection

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

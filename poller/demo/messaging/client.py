"""HTTP and WebSocket client of the messaging server, for one user with one device."""

from __future__ import annotations

import base64
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

Seen = Counter[tuple[str, str, int]]
"""How often a method and a route were answered with a status."""


def no_headers() -> Mapping[str, str]:
    """Nothing but what the libraries send by themselves."""
    return {}


class Client:
    """What the server knows of it is in `user`, `device`, `access` and `refresh`.

    Every answer is counted in `seen`, whatever it is; none raises by its status.
    """

    def __init__(
        self, url: str, seen: Seen | None = None, headers: Callable[[], Mapping[str, str]] = no_headers
    ) -> None:
        """`headers` is asked for what is sent beside all else with each request."""
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self._headers = headers
        self.seen: Seen = Counter() if seen is None else seen
        self.user: UUID | None = None
        self.device: UUID | None = None
        self.access = ""
        self.refresh_token = ""
        self.password = secrets.token_urlsafe(12)
        self.identity = secrets.token_bytes(33)
        self._pre_key = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(
        self, method: str, route: str, *, parameters: Mapping[str, object] | None = None, **how: Any
    ) -> httpx.Response:
        """Send one request to a route, with `parameters` in place of those in braces; counts the answer."""
        path = route.format(**(parameters or {}))
        headers = {**self._headers(), **({"authorization": f"Bearer {self.access}"} if self.access else {})}
        answer = await self._http.request(method, path, headers={**headers, **how.pop("headers", {})}, **how)
        self.seen[method, route, answer.status_code] += 1
        return answer

    async def sign_up(self, username: str) -> httpx.Response:
        """Make an account."""
        body = {"username": username, "password": self.password}
        return self._let_in(await self.ask("POST", "/v1/users", json=body))

    async def log_in(self, username: str, password: str | None = None) -> httpx.Response:
        """Log in, as the device that this is."""
        body: dict[str, object] = {"username": username, "password": password or self.password}
        if self.device is not None:
            body["device"] = str(self.device)
        return self._let_in(await self.ask("POST", "/v1/sessions", json=body))

    async def refresh(self) -> httpx.Response:
        """Exchange the refresh token."""
        body = {"refresh": self.refresh_token}
        return self._let_in(await self.ask("POST", "/v1/sessions/refresh", json=body))

    async def log_out(self) -> httpx.Response:
        """End the session."""
        return await self.ask("DELETE", "/v1/sessions", json={"refresh": self.refresh_token})

    async def set_up_device(self, pre_keys: int) -> httpx.Response:
        """Set up the device with some one-time pre-keys."""
        body = {"name": "phone", "keys": self._keys(pre_keys)}
        return self._let_in(await self.ask("POST", "/v1/devices", json=body))

    async def upload_keys(self, pre_keys: int) -> httpx.Response:
        """Publish more one-time pre-keys under the identity key of now."""
        return await self.ask("POST", "/v1/devices/keys", json=self._keys(pre_keys))

    async def delete_device(self, device: UUID) -> httpx.Response:
        """Delete a device."""
        return await self.ask("DELETE", "/v1/devices/{deviceId}", parameters={"deviceId": device})

    async def set_push_token(self, token: str) -> httpx.Response:
        """Say where the device is woken up."""
        return await self.ask("PUT", "/v1/push-tokens", json={"token": token})

    async def bundles(self, user: UUID | None) -> httpx.Response:
        """The devices of a user, and a key for each."""
        return await self.ask("GET", "/v1/users/{userId}", parameters={"userId": user})

    async def send(self, devices: Sequence[UUID | None], content: bytes) -> httpx.Response:
        """Send the same to several devices, in one request."""
        messages = [
            {"submission": str(uuid4()), "device": str(device), "content": base64.b64encode(content).decode()}
            for device in devices
        ]
        return await self.ask("POST", "/v1/messages", json={"messages": messages})

    async def upload(self, content: bytes) -> httpx.Response:
        """Upload an attachment."""
        return await self.ask("POST", "/v1/attachments", content=content)

    async def download(self, attachment: str) -> httpx.Response:
        """Download an attachment."""
        return await self.ask("GET", "/v1/attachments/{id}", parameters={"id": attachment})

    async def back_up(self, content: bytes) -> httpx.Response:
        """Upload a backup."""
        return await self.ask("POST", "/v1/backup", content=content)

    @asynccontextmanager
    async def connected(self, ticket: str | None = None, **how: Any) -> AsyncIterator[Connection]:
        """Be connected while the block runs; with a ticket of its own unless one is given.

        Raises httpx.HTTPStatusError where there is no ticket, and websockets.exceptions.InvalidStatus where
        the server refuses it.
        """
        if ticket is None:
            answer = await self.ask("POST", "/v1/gateway/ticket")
            ticket = answer.raise_for_status().json()["ticket"]
        url = f"{self.url.replace('http', 'ws', 1)}/v1/gateway?{urlencode({'ticket': ticket})}"
        try:
            opened = connect(url, additional_headers=self._headers(), compression=None, max_size=None, **how)
            async with opened as socket:
                self.seen["GET", "/v1/gateway", 101] += 1
                yield Connection(socket)
        except InvalidStatus as error:
            self.seen["GET", "/v1/gateway", error.response.status_code] += 1
            raise

    def _keys(self, count: int) -> dict[str, object]:
        first, self._pre_key = self._pre_key + 1, self._pre_key + count
        return {
            "identity": base64.b64encode(self.identity).decode(),
            "pre_keys": [
                {"id": number, "key": base64.b64encode(secrets.token_bytes(33)).decode()}
                for number in range(first, self._pre_key + 1)
            ],
        }

    def _let_in(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            told = answer.json()
            self.user = UUID(told["user"])
            self.device = UUID(told["device"]) if "device" in told else None
            self.access, self.refresh_token = told["access"], told["refresh"]
        return answer


class Connection:
    """A session at the gateway."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def receive(self) -> tuple[list[str], int | None]:
        """The ids of the next messages; or none, and how many pre-keys are left.

        Raises websockets.exceptions.ConnectionClosed when the session is over.
        """
        told = json.loads(await self.socket.recv())
        return [one["id"] for one in told.get("messages", ())], told.get("pre_keys")

    async def acknowledge(self, messages: Sequence[str]) -> None:
        """Say that messages are here."""
        await self.socket.send(json.dumps({"ack": list(messages)}))

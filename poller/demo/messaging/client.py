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

ResponseCounts = Counter[tuple[str, str, int]]
"""Number of responses by method, route and status."""


def no_headers() -> Mapping[str, str]:
    """Return no additional headers."""
    return {}


class Client:
    """A client; `user`, `device`, `access` and `refresh_token` have its identity at the server.

    `responses` counts every response; an error status raises no exception.
    """

    def __init__(
        self,
        url: str,
        responses: ResponseCounts | None = None,
        headers: Callable[[], Mapping[str, str]] = no_headers,
    ) -> None:
        """`headers` returns additional headers for each request."""
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self._headers = headers
        self.responses: ResponseCounts = Counter() if responses is None else responses
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

    async def request(
        self, method: str, route: str, *, parameters: Mapping[str, object] | None = None, **options: Any
    ) -> httpx.Response:
        """Send one request to a route, after `parameters` replace its placeholders; count the response."""
        path = route.format(**(parameters or {}))
        headers = {**self._headers(), **({"authorization": f"Bearer {self.access}"} if self.access else {})}
        response = await self._http.request(
            method, path, headers={**headers, **options.pop("headers", {})}, **options
        )
        self.responses[method, route, response.status_code] += 1
        return response

    async def sign_up(self, username: str) -> httpx.Response:
        """Create an account."""
        body = {"username": username, "password": self.password}
        return self._store_session(await self.request("POST", "/v1/users", json=body))

    async def log_in(self, username: str, password: str | None = None) -> httpx.Response:
        """Log in with this device, if it exists."""
        body: dict[str, object] = {"username": username, "password": password or self.password}
        if self.device is not None:
            body["device"] = str(self.device)
        return self._store_session(await self.request("POST", "/v1/sessions", json=body))

    async def refresh(self) -> httpx.Response:
        """Exchange the refresh token."""
        body = {"refresh": self.refresh_token}
        return self._store_session(await self.request("POST", "/v1/sessions/refresh", json=body))

    async def log_out(self) -> httpx.Response:
        """End the session."""
        return await self.request("DELETE", "/v1/sessions", json={"refresh": self.refresh_token})

    async def set_up_device(self, pre_keys: int) -> httpx.Response:
        """Set up the device with some one-time pre-keys."""
        body = {"name": "phone", "keys": self._keys(pre_keys)}
        return self._store_session(await self.request("POST", "/v1/devices", json=body))

    async def upload_keys(self, pre_keys: int) -> httpx.Response:
        """Publish more one-time pre-keys with the current identity key."""
        return await self.request("POST", "/v1/devices/keys", json=self._keys(pre_keys))

    async def delete_device(self, device: UUID) -> httpx.Response:
        """Delete a device."""
        return await self.request("DELETE", "/v1/devices/{deviceId}", parameters={"deviceId": device})

    async def set_push_token(self, token: str) -> httpx.Response:
        """Set the device's push token."""
        return await self.request("PUT", "/v1/push-tokens", json={"token": token})

    async def bundles(self, user: UUID | None) -> httpx.Response:
        """Fetch the devices of a user, with a pre-key of each."""
        return await self.request("GET", "/v1/users/{userId}", parameters={"userId": user})

    async def send(self, devices: Sequence[UUID | None], content: bytes) -> httpx.Response:
        """Send the same content to several devices in one request."""
        messages = [
            {"submission": str(uuid4()), "device": str(device), "content": base64.b64encode(content).decode()}
            for device in devices
        ]
        return await self.request("POST", "/v1/messages", json={"messages": messages})

    async def upload(self, content: bytes) -> httpx.Response:
        """Upload an attachment."""
        return await self.request("POST", "/v1/attachments", content=content)

    async def download(self, attachment: str) -> httpx.Response:
        """Download an attachment."""
        return await self.request("GET", "/v1/attachments/{id}", parameters={"id": attachment})

    async def back_up(self, content: bytes) -> httpx.Response:
        """Upload a backup."""
        return await self.request("POST", "/v1/backup", content=content)

    @asynccontextmanager
    async def connected(self, ticket: str | None = None, **options: Any) -> AsyncIterator[GatewaySession]:
        """Connect for the duration of the block; without `ticket`, request a new ticket.

        Raises httpx.HTTPStatusError if the server issues no ticket, and websockets.exceptions.InvalidStatus
        if the server rejects the ticket.
        """
        if ticket is None:
            response = await self.request("POST", "/v1/gateway/ticket")
            ticket = response.raise_for_status().json()["ticket"]
        url = f"{self.url.replace('http', 'ws', 1)}/v1/gateway?{urlencode({'ticket': ticket})}"
        try:
            connection = connect(
                url, additional_headers=self._headers(), compression=None, max_size=None, **options
            )
            async with connection as socket:
                self.responses["GET", "/v1/gateway", 101] += 1
                yield GatewaySession(socket)
        except InvalidStatus as error:
            self.responses["GET", "/v1/gateway", error.response.status_code] += 1
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

    def _store_session(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            body = response.json()
            self.user = UUID(body["user"])
            self.device = UUID(body["device"]) if "device" in body else None
            self.access, self.refresh_token = body["access"], body["refresh"]
        return response


class GatewaySession:
    """A WebSocket session at the gateway."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def receive(self) -> tuple[list[str], int | None]:
        """Return the ids of the next messages and None, or no ids and the number of remaining pre-keys.

        Raises websockets.exceptions.ConnectionClosed when the session is over.
        """
        frame = json.loads(await self.socket.recv())
        return [message["id"] for message in frame.get("messages", ())], frame.get("pre_keys")

    async def acknowledge(self, messages: Sequence[str]) -> None:
        """Acknowledge messages."""
        await self.socket.send(json.dumps({"ack": list(messages)}))

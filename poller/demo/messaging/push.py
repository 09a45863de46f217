"""Push notifications to disconnected devices, sent through an external provider."""

from __future__ import annotations

import logging
import time
from typing import Literal, Protocol
from uuid import UUID

import httpx

from poller.demo.messaging.database import Pool
from poller.demo.messaging.settings import Settings
from poller.events import EventMetrics
from poller.events.service import traced

logger = logging.getLogger(__name__)

Outcome = Literal["sent", "invalid", "quota_exceeded", "other"]


class Provider(Protocol):
    """Who brings a push notification to a device."""

    async def send(self, token: str) -> Outcome:
        """Wake up the device of a token."""


class NoProvider:
    """In place of one: takes everything."""

    async def send(self, token: str) -> Outcome:
        """Nothing is sent, and that counts as sent."""
        del token
        return "sent"


class HttpProvider:
    """A provider that is asked by POST, and answers 404 for a token that it does not know any more."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=5)

    async def send(self, token: str) -> Outcome:
        """Wake up the device of a token."""
        try:
            answer = await self._client.post(self._url, json={"token": token})
        except httpx.HTTPError:
            return "other"
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return "quota_exceeded"
        if answer.status_code == httpx.codes.NOT_FOUND:
            return "invalid"
        return "sent" if answer.is_success else "other"


class PushService:
    """The devices that are to be woken up, and when."""

    def __init__(self, pool: Pool, provider: Provider, metrics: EventMetrics, settings: Settings) -> None:
        self._pool = pool
        self._provider = provider
        self._metrics = metrics
        self._delay = settings.push_delay
        self._due: dict[UUID, float] = {}
        """Monotonic seconds."""

    def schedule(self, device: UUID) -> None:
        """Wake up a device, unless it comes by itself before that."""
        self._due.setdefault(device, time.monotonic() + self._delay)

    def cancel(self, device: UUID) -> None:
        """Leave a device alone: it has come."""
        self._due.pop(device, None)

    async def run_due(self) -> None:
        """Wake up the devices whose time it is; a failed one is not tried again before its next message."""
        now = time.monotonic()
        due = [device for device, at in self._due.items() if at <= now]
        for device in due:
            del self._due[device]
        if due:
            await self._wake_up(due)

    @traced("process_push_jobs")
    async def _wake_up(self, due: list[UUID]) -> None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT device_id, token FROM push_tokens WHERE device_id = ANY(%s)", (due,)
            )
            rows = await cursor.fetchall()
        invalid = [device for device, token in rows if not await self._send(token)]
        if invalid:
            async with self._pool.connection() as connection:
                await connection.execute("DELETE FROM push_tokens WHERE device_id = ANY(%s)", (invalid,))
            self._metrics.push_token_invalid(len(invalid))

    async def _send(self, token: str) -> bool:
        """Whether the provider still knows the token."""
        outcome = await self._provider.send(token)
        if outcome == "sent":
            self._metrics.push_sent()
        elif outcome != "invalid":
            self._metrics.push_failed(outcome)
            logger.warning("a push notification failed: %s", outcome)
        return outcome != "invalid"

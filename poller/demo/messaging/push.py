"""Push notifications to disconnected devices, sent through an external provider."""

from __future__ import annotations

import logging
import time
from typing import Literal, Protocol
from uuid import UUID

import httpx

from poller.demo.messaging.database import Pool
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events.service import traced

logger = logging.getLogger(__name__)

PushOutcome = Literal["sent", "invalid", "quota_exceeded", "other"]


class Provider(Protocol):
    """An external provider of push notifications."""

    async def send(self, token: str) -> PushOutcome:
        """Send a notification to the device with this token."""


class NoProvider:
    """A provider without a network: it sends nothing and reports success."""

    async def send(self, token: str) -> PushOutcome:
        """Report success without sending."""
        del token
        return "sent"


class HttpProvider:
    """A provider with an HTTP API; it responds with 404 to an invalid token."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=5)

    async def send(self, token: str) -> PushOutcome:
        """Send a notification to the device with this token."""
        try:
            response = await self._client.post(self._url, json={"token": token})
        except httpx.HTTPError:
            return "other"
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return "quota_exceeded"
        if response.status_code == httpx.codes.NOT_FOUND:
            return "invalid"
        return "sent" if response.is_success else "other"


class PushService:
    """Scheduled push notifications, at most one per device."""

    def __init__(
        self, pool: Pool, provider: Provider, metrics: EventMetrics, settings: MessagingSettings
    ) -> None:
        self._pool = pool
        self._provider = provider
        self._metrics = metrics
        self._delay = settings.push_delay
        self._due: dict[UUID, float] = {}
        """By device: the time of its notification, in monotonic seconds."""

    def schedule(self, device: UUID) -> None:
        """Send a notification after the delay, unless the device connects before that."""
        self._due.setdefault(device, time.monotonic() + self._delay)

    def cancel(self, device: UUID) -> None:
        """Cancel the notification of a device that has connected."""
        self._due.pop(device, None)

    async def run_due(self) -> None:
        """Send the notifications that are due; a failed notification is not retried."""
        now = time.monotonic()
        due = [device for device, at in self._due.items() if at <= now]
        for device in due:
            del self._due[device]
        if due:
            await self._send_due(due)

    @traced("process_push_jobs")
    async def _send_due(self, due: list[UUID]) -> None:
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
        """Send one notification; returns whether the token is valid."""
        outcome = await self._provider.send(token)
        if outcome == "sent":
            self._metrics.push_sent()
        elif outcome != "invalid":
            self._metrics.push_failed(outcome)
            logger.warning("a push notification failed: %s", outcome)
        return outcome != "invalid"

"""Notifications to devices: at once over an open session, otherwise by push."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import get_args
from uuid import UUID

import psycopg

from poller.demo.messaging.bus import Bus
from poller.demo.messaging.push import PushService
from poller.events import EventMetrics, NotificationEvent
from poller.events.service import traced

logger = logging.getLogger(__name__)

Channel = set[asyncio.Queue[NotificationEvent]]
"""The queues of all sessions of one device."""

_QUEUE_SIZE = 1000
"""Maximum number of queued notifications per session; more would contain no new information."""


class NotificationService:
    """The channels of devices that are connected to this process, or were until the last cleanup."""

    def __init__(self, bus: Bus, push: PushService, metrics: EventMetrics) -> None:
        self._bus = bus
        self._push = push
        self._metrics = metrics
        self._channels: dict[UUID, Channel] = {}

    @contextmanager
    def subscribe(self, device: UUID) -> Iterator[asyncio.Queue[NotificationEvent]]:
        """Provide a queue of the device's notifications for the duration of the block."""
        if device not in self._channels:
            self._channels[device] = set()
            self._metrics.notification_channel_opened()
        queue: asyncio.Queue[NotificationEvent] = asyncio.Queue(_QUEUE_SIZE)
        self._channels[device].add(queue)
        self._push.cancel(device)
        try:
            yield queue
        finally:
            self._channels[device].discard(queue)

    async def notify(self, devices: Sequence[UUID], event: NotificationEvent) -> None:
        """Notify devices of an event; a failure is counted and logged, and does not fail the request."""
        if devices:
            await self._publish(devices, event)

    async def run(self) -> None:
        """Dispatch the notifications of the bus until cancelled."""
        async for payload in self._bus.listen():
            if payload:
                with suppress(ValueError):  # other clients of the database can publish as well
                    self._dispatch(payload)
            else:
                # Notifications may be missing, so every session looks for messages.
                for channel in self._channels.values():
                    _enqueue(channel, "MessageReceived")

    @traced("run_notification_cleanup")
    async def clean_up(self) -> None:
        """Delete the channels without a session."""
        with self._metrics.notification_cleanup():
            unused = [device for device, channel in self._channels.items() if not channel]
            for device in unused:
                del self._channels[device]
            self._metrics.notification_channels_reclaimed(len(unused))

    @traced("notify_devices")
    async def _publish(self, devices: Sequence[UUID], event: NotificationEvent) -> None:
        counts: dict[bool, int] = defaultdict(int)
        for device in devices:
            connected = bool(self._channels.get(device))
            counts[connected] += 1
            if not connected and event == "MessageReceived":
                self._push.schedule(device)
        try:
            await self._bus.publish([f"{event} {device}" for device in devices])
        except psycopg.Error as error:
            self._metrics.notification_sent("error", len(devices))
            logger.warning("notifications are lost: %s", " ".join(str(error).split()))
        else:
            for connected, count in counts.items():
                self._metrics.notification_sent("sent" if connected else "no_receivers", count)

    def _dispatch(self, payload: str) -> None:
        event, device = _parse(payload)
        self._metrics.notification_received(event)
        if channel := self._channels.get(device):
            _enqueue(channel, event)
        else:
            self._metrics.notification_unrouted(event)
        self._metrics.notification_processed()


def _parse(payload: str) -> tuple[NotificationEvent, UUID]:
    """Parse a payload; raises ValueError if it is not a notification of this server."""
    name, _, device = payload.partition(" ")
    events: tuple[NotificationEvent, ...] = get_args(NotificationEvent)
    return events[events.index(name)], UUID(device)


def _enqueue(channel: Channel, event: NotificationEvent) -> None:
    for queue in channel:
        with suppress(asyncio.QueueFull):
            queue.put_nowait(event)

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
"""Those who listen for one device."""

_ROOM = 1000
"""Notifications that wait for one listener; more would tell it nothing new."""


class NotificationService:
    """The channels of the devices that are connected here, or were lately."""

    def __init__(self, bus: Bus, push: PushService, metrics: EventMetrics) -> None:
        self._bus = bus
        self._push = push
        self._metrics = metrics
        self._channels: dict[UUID, Channel] = {}

    @contextmanager
    def subscribe(self, device: UUID) -> Iterator[asyncio.Queue[NotificationEvent]]:
        """What a device is told while the block runs."""
        if device not in self._channels:
            self._channels[device] = set()
            self._metrics.notification_channel_opened()
        told: asyncio.Queue[NotificationEvent] = asyncio.Queue(_ROOM)
        self._channels[device].add(told)
        self._push.cancel(device)
        try:
            yield told
        finally:
            self._channels[device].discard(told)

    async def notify(self, devices: Sequence[UUID], event: NotificationEvent) -> None:
        """Tell devices of an event; a failure is counted and logged, and fails nobody's request."""
        if devices:
            await self._publish(devices, event)

    async def run(self) -> None:
        """Hand on what the bus brings, until cancelled."""
        async for payload in self._bus.listen():
            if payload:
                with suppress(ValueError):  # anyone may publish here
                    self._dispatch(payload)
            else:
                # Whoever is connected looks for what was missed.
                for channel in self._channels.values():
                    _tell(channel, "MessageReceived")

    @traced("run_notification_cleanup")
    async def clean_up(self) -> None:
        """Give up the channels that nobody listens to."""
        with self._metrics.notification_cleanup():
            silent = [device for device, channel in self._channels.items() if not channel]
            for device in silent:
                del self._channels[device]
            self._metrics.notification_channels_reclaimed(len(silent))

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
        event, device = _parsed(payload)
        self._metrics.notification_received(event)
        if channel := self._channels.get(device):
            _tell(channel, event)
        else:
            self._metrics.notification_unrouted(event)
        self._metrics.notification_processed()


def _parsed(payload: str) -> tuple[NotificationEvent, UUID]:
    """Raises ValueError for what is no notification of ours."""
    name, _, device = payload.partition(" ")
    known: tuple[NotificationEvent, ...] = get_args(NotificationEvent)
    return known[known.index(name)], UUID(device)


def _tell(channel: Channel, event: NotificationEvent) -> None:
    for listener in channel:
        with suppress(asyncio.QueueFull):
            listener.put_nowait(event)

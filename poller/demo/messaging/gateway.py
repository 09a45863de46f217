"""WebSocket gateway: message delivery to connected devices, and their acknowledgements."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

from starlette.websockets import WebSocket, WebSocketDisconnect

from poller.demo.messaging.accounts import Principal
from poller.demo.messaging.devices import KeyService
from poller.demo.messaging.messages import Envelope, MessageService
from poller.demo.messaging.notifications import NotificationService
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics, NotificationEvent
from poller.events.websocket import offer

_GOING_AWAY, _INVALID_FRAME = 1001, 1007
"""Close codes (RFC 6455, 7.4.1)."""


class Gateway:
    """Tickets, and the WebSocket sessions that clients open with them."""

    def __init__(
        self,
        messages: MessageService,
        keys: KeyService,
        notifications: NotificationService,
        metrics: EventMetrics,
        settings: MessagingSettings,
    ) -> None:
        self._messages = messages
        self._keys = keys
        self._notifications = notifications
        self._metrics = metrics
        self._settings = settings
        self._tickets: dict[str, tuple[Principal, float]] = {}

    def ticket(self, principal: Principal) -> str:
        """Return a ticket that opens one session before it expires."""
        now = time.monotonic()
        for old in [ticket for ticket, (_, until) in self._tickets.items() if until < now]:
            del self._tickets[old]
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = principal, now + self._settings.ticket_lifetime
        return ticket

    def redeem(self, ticket: str) -> Principal | None:
        """Return the principal of a ticket, or None if it is invalid; a ticket is valid once."""
        principal, until = self._tickets.pop(ticket, (None, 0.0))
        return principal if until > time.monotonic() else None

    async def serve(self, socket: WebSocket, device: UUID) -> None:
        """Run a session on an accepted WebSocket until one side ends it."""
        session = _Session(socket, device, self._messages, self._keys, self._metrics, self._settings)
        with self._notifications.subscribe(device) as events:
            await session.run(events)


class _Session:
    """One connection of one device: four tasks, and the queues between them."""

    def __init__(
        self,
        socket: WebSocket,
        device: UUID,
        messages: MessageService,
        keys: KeyService,
        metrics: EventMetrics,
        settings: MessagingSettings,
    ) -> None:
        self._socket = socket
        self._device = device
        self._messages = messages
        self._keys = keys
        self._metrics = metrics
        self._settings = settings
        self._outbound: asyncio.Queue[str] = asyncio.Queue(settings.outbound_queue)
        self._acks: asyncio.Queue[UUID] = asyncio.Queue(settings.ack_queue)
        self._in_delivery: set[UUID] = set()
        """Messages that this session has fetched and the client has not acknowledged."""
        self._batch: list[UUID] = []
        self._sending = False

    async def run(self, events: asyncio.Queue[NotificationEvent]) -> None:
        """Serve until one task ends, then end the others."""
        parts = (self._read(), self._send(), self._pump(events), self._flush())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._metrics.websocket_outbound_dropped("channel_closed", self._outbound.qsize() + self._sending)
            await self._flush_rest()
        for task in done:
            task.result()

    async def _read(self) -> None:
        """Read acknowledgements until the client disconnects or sends an invalid frame."""
        async for text in self._socket.iter_text():
            try:
                acknowledged = [UUID(message) for message in json.loads(text)["ack"]]
            except (KeyError, TypeError, ValueError, AttributeError):
                await self._socket.close(_INVALID_FRAME)
                return
            if acknowledged:
                self._metrics.websocket_acks_received()
            for message in acknowledged:
                offer(self._acks, message, self._metrics.websocket_acks_dropped)

    async def _send(self) -> None:
        """Send queued frames as fast as the client reads them."""
        with suppress(WebSocketDisconnect, OSError):
            while True:
                frame = await self._outbound.get()
                self._sending = True
                await self._socket.send_text(frame)
                self._sending = False

    async def _pump(self, events: asyncio.Queue[NotificationEvent]) -> None:
        """Queue the client's messages at the start and after each notification."""
        self._offer(json.dumps({"pre_keys": await self._keys.check(self._device)}))
        await self._fetch()
        while True:
            event = await events.get()
            if event == "MessageReceived":
                await self._fetch()
            elif event == "PreKeyLow":
                self._offer(json.dumps({"pre_keys": await self._keys.remaining(self._device)}))
            else:
                await self._socket.close(_GOING_AWAY)
                return

    async def _fetch(self) -> None:
        while True:
            envelopes = await self._messages.fetch(self._device, self._in_delivery)
            self._in_delivery.update(envelope.id for envelope in envelopes)
            if envelopes:
                frame = _encode(envelopes)
                if len(frame) > self._settings.frame_size:
                    self._metrics.websocket_outbound_dropped("encode_failed")
                else:
                    self._offer(frame)
            if len(envelopes) < self._settings.fetch_limit:
                return

    def _offer(self, frame: str) -> None:
        offer(self._outbound, frame, partial(self._metrics.websocket_outbound_dropped, "buffer_full"))

    async def _flush(self) -> None:
        """Write acknowledgements to the database in batches."""
        while True:
            self._batch.append(await self._acks.get())
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.ack_interval):
                    while len(self._batch) < self._settings.ack_batch:
                        self._batch.append(await self._acks.get())
            await self._write()

    async def _flush_rest(self) -> None:
        while not self._acks.empty():
            self._batch.append(self._acks.get_nowait())
        if self._batch:
            await self._write()

    async def _write(self) -> None:
        batch, self._batch = self._batch, []
        await self._messages.acknowledge(self._device, batch)
        self._in_delivery.difference_update(batch)


def _encode(envelopes: Sequence[Envelope]) -> str:
    return json.dumps(
        {
            "messages": [
                {
                    "id": str(envelope.id),
                    "sender": str(envelope.sender),
                    "content": base64.b64encode(envelope.content).decode(),
                }
                for envelope in envelopes
            ]
        }
    )

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
from poller.demo.messaging.settings import Settings
from poller.events import EventMetrics, NotificationEvent
from poller.events.websocket import offer

_GOING_AWAY, _UNREADABLE = 1001, 1007
"""Close codes (RFC 6455, 7.4.1)."""


class Gateway:
    """Tickets, and the sessions that are opened with them."""

    def __init__(
        self,
        messages: MessageService,
        keys: KeyService,
        notifications: NotificationService,
        metrics: EventMetrics,
        settings: Settings,
    ) -> None:
        self._messages = messages
        self._keys = keys
        self._notifications = notifications
        self._metrics = metrics
        self._settings = settings
        self._tickets: dict[str, tuple[Principal, float]] = {}

    def ticket(self, principal: Principal) -> str:
        """A ticket that opens one session, soon."""
        now = time.monotonic()
        for old in [ticket for ticket, (_, until) in self._tickets.items() if until < now]:
            del self._tickets[old]
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = principal, now + self._settings.ticket_lifetime
        return ticket

    def redeem(self, ticket: str) -> Principal | None:
        """Whose a ticket is; it cannot be used again."""
        principal, until = self._tickets.pop(ticket, (None, 0.0))
        return principal if until > time.monotonic() else None

    async def serve(self, socket: WebSocket, device: UUID) -> None:
        """Run a session on an accepted WebSocket until either side ends it."""
        session = _Session(socket, device, self._messages, self._keys, self._metrics, self._settings)
        with self._notifications.subscribe(device) as told:
            await session.run(told)


class _Session:
    """One connection of one device: three tasks and the queues between them."""

    def __init__(
        self,
        socket: WebSocket,
        device: UUID,
        messages: MessageService,
        keys: KeyService,
        metrics: EventMetrics,
        settings: Settings,
    ) -> None:
        self._socket = socket
        self._device = device
        self._messages = messages
        self._keys = keys
        self._metrics = metrics
        self._settings = settings
        self._outbound: asyncio.Queue[str] = asyncio.Queue(settings.outbound_queue)
        self._acks: asyncio.Queue[UUID] = asyncio.Queue(settings.ack_queue)
        self._under_way: set[UUID] = set()
        """Messages that this session has fetched, and that are not acknowledged."""
        self._batch: list[UUID] = []
        self._sending = False

    async def run(self, told: asyncio.Queue[NotificationEvent]) -> None:
        """Serve until one of the tasks ends, and then end the others."""
        parts = (self._read(), self._send(), self._pump(told), self._flush())
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
        """Take acknowledgements until the client leaves, or writes what nobody can read."""
        async for text in self._socket.iter_text():
            try:
                acknowledged = [UUID(one) for one in json.loads(text)["ack"]]
            except (KeyError, TypeError, ValueError, AttributeError):
                await self._socket.close(_UNREADABLE)
                return
            if acknowledged:
                self._metrics.websocket_acks_received()
            for one in acknowledged:
                offer(self._acks, one, self._metrics.websocket_acks_dropped)

    async def _send(self) -> None:
        """Send what waits; as quickly as the client takes it."""
        with suppress(WebSocketDisconnect, OSError):
            while True:
                frame = await self._outbound.get()
                self._sending = True
                await self._socket.send_text(frame)
                self._sending = False

    async def _pump(self, told: asyncio.Queue[NotificationEvent]) -> None:
        """Offer the client what waits for it, at the beginning and whenever there is news."""
        self._offer(json.dumps({"pre_keys": await self._keys.check(self._device)}))
        await self._fetch()
        while True:
            event = await told.get()
            if event == "MessageReceived":
                await self._fetch()
            elif event == "PreKeyLow":
                self._offer(json.dumps({"pre_keys": await self._keys.left(self._device)}))
            else:
                await self._socket.close(_GOING_AWAY)
                return

    async def _fetch(self) -> None:
        while True:
            found = await self._messages.fetch(self._device, self._under_way)
            self._under_way.update(one.id for one in found)
            if found:
                frame = _encode(found)
                if len(frame) > self._settings.frame_size:
                    self._metrics.websocket_outbound_dropped("encode_failed")
                else:
                    self._offer(frame)
            if len(found) < self._settings.fetch_limit:
                return

    def _offer(self, frame: str) -> None:
        offer(self._outbound, frame, partial(self._metrics.websocket_outbound_dropped, "buffer_full"))

    async def _flush(self) -> None:
        """Write acknowledgements to the database, many at once."""
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
        self._under_way.difference_update(batch)


def _encode(envelopes: Sequence[Envelope]) -> str:
    return json.dumps(
        {
            "messages": [
                {
                    "id": str(one.id),
                    "sender": str(one.sender),
                    "content": base64.b64encode(one.content).decode(),
                }
                for one in envelopes
            ]
        }
    )

"""Message store: each message is stored until its device has received it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.errors import ForeignKeyViolation

from poller.demo.messaging.accounts import Principal
from poller.demo.messaging.database import Pool
from poller.demo.messaging.notifications import NotificationService
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events.service import traced


@dataclass(frozen=True, slots=True)
class Message:
    """A message to one device; its content is encrypted for that device."""

    submission: UUID
    """Id from the client; a message that is sent again with the same id is stored once."""
    device: UUID
    content: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A stored message, as it is delivered."""

    id: UUID
    sender: UUID
    content: bytes


class MessageService:
    """Storage, delivery and expiry of messages."""

    def __init__(
        self,
        pool: Pool,
        metrics: EventMetrics,
        settings: MessagingSettings,
        notifications: NotificationService,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._settings = settings
        self._notifications = notifications

    @traced("send_messages")
    async def send(self, sender: Principal, messages: Sequence[Message]) -> int:
        """Store messages in one transaction and notify their devices; returns the number of new messages.

        Raises RequestError (404) if a device does not exist.
        """
        new = 0
        try:
            async with self._pool.connection() as connection, connection.transaction():
                for message in messages:
                    cursor = await connection.execute(
                        "INSERT INTO messages"
                        " (sender_id, sender_device_id, device_id, submission_id, content, expires_at)"
                        " VALUES (%s, %s, %s, %s, %s, now() + make_interval(secs => %s))"
                        " ON CONFLICT (sender_device_id, submission_id) DO NOTHING",
                        (
                            sender.user,
                            sender.device,
                            message.device,
                            message.submission,
                            message.content,
                            self._settings.message_lifetime,
                        ),
                    )
                    new += cursor.rowcount
        except ForeignKeyViolation:
            self._metrics.message_sent("failure", len(messages))
            raise RequestError(404, "the device does not exist") from None
        self._metrics.message_sent("success", new)
        await self._notifications.notify(
            list(dict.fromkeys(message.device for message in messages)), "MessageReceived"
        )
        return new

    @traced("fetch_pending_batch", capture={"device": "device.id"})
    async def fetch(self, device: UUID, in_delivery: Collection[UUID]) -> list[Envelope]:
        """Return the oldest messages of a device that are not in delivery."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, sender_id, content FROM messages WHERE device_id = %s AND expires_at > now()"
                " AND id <> ALL(%s) ORDER BY created_at, id LIMIT %s",
                (device, list(in_delivery), self._settings.fetch_limit),
            )
            envelopes = [Envelope(*row) for row in await cursor.fetchall()]
        self._metrics.messages_fetched(len(envelopes))
        return envelopes

    @traced("delete_batch", capture={"device": "device.id"})
    async def acknowledge(self, device: UUID, messages: Collection[UUID]) -> None:
        """Delete messages that the device has received."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "DELETE FROM messages WHERE device_id = %s AND id = ANY(%s)", (device, list(messages))
            )
        self._metrics.websocket_acks_flushed(len(messages))

    @traced("run_message_cleanup")
    async def clean_up(self) -> None:
        """Delete expired messages, and the oldest messages of inboxes that are too large."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM messages WHERE expires_at < now()")
            cursor = await connection.execute(
                "DELETE FROM messages USING (SELECT id AS stored, row_number() OVER"
                " (PARTITION BY device_id ORDER BY created_at DESC, id DESC) AS place FROM messages) AS p"
                " WHERE id = stored AND place > %s",
                (self._settings.inbox_size,),
            )
        if cursor.rowcount:
            self._metrics.inbox_overflowed(cursor.rowcount)

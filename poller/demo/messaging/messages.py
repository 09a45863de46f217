"""Message store: each message is kept until its device has received it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.errors import ForeignKeyViolation

from poller.demo.messaging.accounts import Principal
from poller.demo.messaging.database import Pool
from poller.demo.messaging.notifications import NotificationService
from poller.demo.messaging.refused import RefusedError
from poller.demo.messaging.settings import Settings
from poller.events import EventMetrics
from poller.events.service import traced


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: to which device, and what is in it. The server cannot read it."""

    submission: UUID
    """Made by the client; what is sent twice with it is stored once."""
    device: UUID
    content: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is delivered."""

    id: UUID
    sender: UUID
    content: bytes


class MessageService:
    """The messages that wait."""

    def __init__(
        self,
        pool: Pool,
        metrics: EventMetrics,
        settings: Settings,
        notifications: NotificationService,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._settings = settings
        self._notifications = notifications

    @traced("send_messages")
    async def send(self, sender: Principal, messages: Sequence[Message]) -> int:
        """Store messages, all or none, and tell their devices; returns how many are new.

        Raises RefusedError (404) where one is for a device that there is not.
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
            raise RefusedError(404, "there is no such device") from None
        self._metrics.message_sent("success", new)
        await self._notifications.notify(
            list(dict.fromkeys(message.device for message in messages)), "MessageReceived"
        )
        return new

    @traced("fetch_pending_batch", capture={"device": "device.id"})
    async def fetch(self, device: UUID, under_way: Collection[UUID]) -> list[Envelope]:
        """The oldest messages of a device that are not under way to it already."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, sender_id, content FROM messages WHERE device_id = %s AND expires_at > now()"
                " AND id <> ALL(%s) ORDER BY created_at, id LIMIT %s",
                (device, list(under_way), self._settings.fetch_limit),
            )
            found = [Envelope(*row) for row in await cursor.fetchall()]
        self._metrics.messages_fetched(len(found))
        return found

    @traced("delete_batch", capture={"device": "device.id"})
    async def acknowledge(self, device: UUID, messages: Collection[UUID]) -> None:
        """Delete what a device has."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "DELETE FROM messages WHERE device_id = %s AND id = ANY(%s)", (device, list(messages))
            )
        self._metrics.websocket_acks_flushed(len(messages))

    @traced("run_message_cleanup")
    async def clean_up(self) -> None:
        """Delete what has expired, and of each inbox that is too full what is oldest."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM messages WHERE expires_at < now()")
            cursor = await connection.execute(
                "DELETE FROM messages USING (SELECT id AS one, row_number() OVER"
                " (PARTITION BY device_id ORDER BY created_at DESC, id DESC) AS place FROM messages) AS p"
                " WHERE id = one AND place > %s",
                (self._settings.inbox_size,),
            )
        if cursor.rowcount:
            self._metrics.inbox_overflowed(cursor.rowcount)

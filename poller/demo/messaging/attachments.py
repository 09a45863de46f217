"""Attachments: files too large for a message, deleted after their lifetime."""

from __future__ import annotations

from uuid import UUID, uuid4

from poller.demo.messaging.database import Pool
from poller.demo.messaging.objects import ObjectStore
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events.service import traced

_BATCH = 100


class AttachmentService:
    """Attachments: rows in the database, bytes in the object store."""

    def __init__(
        self, pool: Pool, objects: ObjectStore, metrics: EventMetrics, settings: MessagingSettings
    ) -> None:
        self._pool = pool
        self._objects = objects
        self._metrics = metrics
        self._settings = settings

    @traced("upload_attachment")
    async def upload(self, content: bytes) -> UUID:
        """Store an attachment; its content first, so that every row has content."""
        attachment = uuid4()
        await self._objects.put(_key(attachment), content)
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO attachments (id, size_bytes, expires_at)"
                " VALUES (%s, %s, now() + make_interval(secs => %s))",
                (attachment, len(content), self._settings.attachment_lifetime),
            )
        self._metrics.attachment_uploaded(len(content))
        return attachment

    @traced("download_attachment", capture={"attachment": "attachment.id"})
    async def download(self, attachment: UUID) -> bytes:
        """Return the content of an attachment. Raises RequestError (404) if it is missing or expired."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM attachments WHERE id = %s AND expires_at >= now()", (attachment,)
            )
            exists = await cursor.fetchone() is not None
        content = await self._objects.get(_key(attachment)) if exists else None
        if content is None:
            raise RequestError(404, "the attachment does not exist or has expired")
        return content

    @traced("run_attachment_cleanup")
    async def clean_up(self) -> None:
        """Delete expired attachments; the content first, so that no content stays without a row."""
        try:
            while expired := await self._expired():
                for attachment in expired:
                    await self._objects.delete(_key(attachment))
                async with self._pool.connection() as connection:
                    await connection.execute("DELETE FROM attachments WHERE id = ANY(%s)", (expired,))
                self._metrics.attachments_deleted(len(expired))
        except Exception:
            self._metrics.attachment_cleanup_failed()
            raise

    async def _expired(self) -> list[UUID]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT id FROM attachments WHERE expires_at < now() LIMIT %s", (_BATCH,)
            )
            return [row[0] for row in await cursor.fetchall()]


def _key(attachment: UUID) -> str:
    return f"attachments/{attachment}"

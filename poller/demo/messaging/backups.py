"""Backups: the newest one of each device."""

from __future__ import annotations

from uuid import UUID

from poller.demo.messaging.database import Pool
from poller.demo.messaging.objects import ObjectStore
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events.service import traced


class BackupService:
    """Backups: one row per device; the object store has the content of each version."""

    def __init__(
        self, pool: Pool, objects: ObjectStore, metrics: EventMetrics, settings: MessagingSettings
    ) -> None:
        self._pool = pool
        self._objects = objects
        self._metrics = metrics
        self._settings = settings

    @traced("upload_backup", capture={"device": "device.id"})
    async def upload(self, device: UUID, content: bytes) -> int:
        """Store the next version, then delete the previous version; returns the new number."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "INSERT INTO backups (device_id, pending_version, state, pending_at)"
                " VALUES (%s, 1, 'UPLOADING', now()) ON CONFLICT (device_id) DO UPDATE SET"
                " pending_version = backups.current_version + 1, state = 'UPLOADING', pending_at = now(),"
                " updated_at = now() RETURNING pending_version",
                (device,),
            )
            row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - RETURNING
        version: int = row[0]
        await self._objects.put(_key(device, version), content)
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE backups SET current_version = %s, pending_version = NULL, state = 'ACTIVE',"
                " pending_at = NULL, updated_at = now() WHERE device_id = %s",
                (version, device),
            )
        self._metrics.backup_uploaded(len(content))
        await self._objects.delete(_key(device, version - 1))
        return version

    @traced("download_backup", capture={"device": "device.id"})
    async def download(self, device: UUID) -> tuple[int, bytes]:
        """Return the newest version and its content. Raises RequestError (404) if there is none."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT current_version FROM backups WHERE device_id = %s", (device,)
            )
            row = await cursor.fetchone()
        content = await self._objects.get(_key(device, row[0])) if row else None
        if row is None or content is None:
            raise RequestError(404, "the device has no backup")
        return row[0], content

    @traced("run_backup_cleanup")
    async def clean_up(self) -> None:
        """Reset abandoned uploads and delete their content."""
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT device_id, pending_version FROM backups"
                    " WHERE state = 'UPLOADING' AND pending_at < now() - make_interval(secs => %s)",
                    (self._settings.stale_backup,),
                )
                stale = await cursor.fetchall()
                for device, version in stale:
                    await self._objects.delete(_key(device, version))
                    await connection.execute(
                        "UPDATE backups SET pending_version = NULL, state = 'ACTIVE', pending_at = NULL,"
                        " updated_at = now() WHERE device_id = %s AND pending_version = %s",
                        (device, version),
                    )
        except Exception:
            self._metrics.backup_cleanup_failed()
            raise
        self._metrics.backup_cleanup_ran(len(stale))


def _key(device: UUID, version: int) -> str:
    return f"backups/{device}/v{version}"

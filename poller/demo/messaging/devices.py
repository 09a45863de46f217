"""Devices of users, and the public keys that other clients fetch to encrypt messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from poller.demo.messaging.database import Pool, PooledConnection
from poller.demo.messaging.notifications import NotificationService
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events.service import traced


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The public keys that a device publishes."""

    identity: bytes
    pre_keys: Sequence[tuple[int, bytes]] = ()
    """One-time pre-keys, with their ids."""


class DeviceService:
    """Creation and deletion of devices, and their push tokens."""

    def __init__(
        self, pool: Pool, metrics: EventMetrics, notifications: NotificationService, keys: KeyService
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._notifications = notifications
        self._keys = keys

    @traced("create_device")
    async def create(self, user: UUID, name: str, keys: PublicKeys) -> UUID:
        """Create a device with its keys."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "INSERT INTO devices (user_id, name) VALUES (%s, %s) RETURNING id", (user, name)
            )
            row = await cursor.fetchone()
            assert row is not None  # noqa: S101 - RETURNING
            device: UUID = row[0]
            await self._keys.store(connection, device, keys)
        self._metrics.device_created()
        return device

    @traced("delete_device")
    async def delete(self, user: UUID, device: UUID) -> None:
        """Delete a device and all its rows. Raises RequestError (404) if it is not a device of the user."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM devices WHERE id = %s AND user_id = %s", (device, user)
            )
        if cursor.rowcount == 0:
            raise RequestError(404, "the device does not exist")
        self._metrics.device_deleted()
        await self._notifications.notify([device], "Disconnect")

    @traced("set_push_token")
    async def set_push_token(self, device: UUID, token: str) -> None:
        """Store the push token of a device."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO push_tokens (device_id, token) VALUES (%s, %s)"
                " ON CONFLICT (device_id) DO UPDATE SET token = excluded.token, updated_at = now()",
                (device, token),
            )


class KeyService:
    """Storage and delivery of the devices' public keys."""

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

    @traced("upload_keys")
    async def upload(self, device: UUID, keys: PublicKeys) -> bool:
        """Store keys; returns whether the identity key changed, which deletes old pre-keys and messages."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "SELECT identity_key FROM identity_keys WHERE device_id = %s FOR UPDATE", (device,)
            )
            row = await cursor.fetchone()
            changed = row is not None and bytes(row[0]) != keys.identity
            if changed:
                await connection.execute("DELETE FROM one_time_pre_keys WHERE device_id = %s", (device,))
                await connection.execute("DELETE FROM messages WHERE device_id = %s", (device,))
            await self.store(connection, device, keys)
        if changed:
            self._metrics.key_taken_over()
        return changed

    @traced("fetch_key_bundles")
    async def bundles(self, user: UUID) -> list[tuple[UUID, bytes, bytes | None]]:
        """Return each device of a user with its identity key and one pre-key, which is deleted.

        Raises RequestError (404) if the user has no device.
        """
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "WITH used AS (DELETE FROM one_time_pre_keys o USING devices d"
                " WHERE d.user_id = %s AND o.device_id = d.id AND o.id ="
                " (SELECT min(id) FROM one_time_pre_keys WHERE device_id = d.id)"
                " RETURNING o.device_id, o.public_key)"
                " SELECT d.id, i.identity_key, u.public_key,"
                " (SELECT count(*) FROM one_time_pre_keys WHERE device_id = d.id) - count(u.public_key)"
                " FROM devices d JOIN identity_keys i ON i.device_id = d.id"
                " LEFT JOIN used u ON u.device_id = d.id"
                " WHERE d.user_id = %s GROUP BY d.id, i.identity_key, u.public_key",
                (user, user),
            )
            rows = await cursor.fetchall()
        if not rows:
            raise RequestError(404, "the user does not exist")
        low = [device for device, _, _, remaining in rows if self._is_low(remaining)]
        for _ in low:
            self._metrics.prekeys_low()
        await self._notifications.notify(low, "PreKeyLow")
        return [(device, identity, pre_key) for device, identity, pre_key, _ in rows]

    @traced("check_pre_keys")
    async def check(self, device: UUID) -> int:
        """Return the number of a device's one-time pre-keys; count an event if it is low."""
        remaining = await self.remaining(device)
        if self._is_low(remaining):
            self._metrics.prekeys_low()
        return remaining

    async def remaining(self, device: UUID) -> int:
        """Return the number of a device's one-time pre-keys."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT count(*) FROM one_time_pre_keys WHERE device_id = %s", (device,)
            )
            row = await cursor.fetchone()
        return row[0] if row else 0

    async def store(self, connection: PooledConnection, device: UUID, keys: PublicKeys) -> None:
        """Write the keys in the caller's transaction."""
        await connection.execute(
            "INSERT INTO identity_keys (device_id, identity_key, registration_id) VALUES (%s, %s, 1)"
            " ON CONFLICT (device_id) DO UPDATE SET identity_key = excluded.identity_key",
            (device, keys.identity),
        )
        if keys.pre_keys:
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO one_time_pre_keys (device_id, id, public_key) VALUES (%s, %s, %s)"
                    " ON CONFLICT DO NOTHING",
                    [(device, number, key) for number, key in keys.pre_keys],
                )

    def _is_low(self, remaining: int) -> bool:
        return remaining < self._settings.pre_key_threshold

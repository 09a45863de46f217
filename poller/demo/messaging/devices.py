"""Devices of users, and the public keys that other clients fetch to encrypt messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from poller.demo.messaging.database import Connection, Pool
from poller.demo.messaging.notifications import NotificationService
from poller.demo.messaging.refused import RefusedError
from poller.demo.messaging.settings import Settings
from poller.events import EventMetrics
from poller.events.service import traced


@dataclass(frozen=True, slots=True)
class Keys:
    """What a device publishes."""

    identity: bytes
    one_time: Sequence[tuple[int, bytes]] = ()
    """Pre-keys and their ids."""


class DeviceService:
    """The devices of users."""

    def __init__(
        self, pool: Pool, metrics: EventMetrics, notifications: NotificationService, keys: KeyService
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._notifications = notifications
        self._keys = keys

    @traced("create_device")
    async def create(self, user: UUID, name: str, keys: Keys) -> UUID:
        """Set up a device with its keys."""
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
        """Delete a device and all that is for it. Raises RefusedError (404) where the user has none such."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM devices WHERE id = %s AND user_id = %s", (device, user)
            )
        if cursor.rowcount == 0:
            raise RefusedError(404, "there is no such device")
        self._metrics.device_deleted()
        await self._notifications.notify([device], "Disconnect")

    @traced("set_push_token")
    async def set_push_token(self, device: UUID, token: str) -> None:
        """Say where a device is woken up."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO push_tokens (device_id, token) VALUES (%s, %s)"
                " ON CONFLICT (device_id) DO UPDATE SET token = excluded.token, updated_at = now()",
                (device, token),
            )


class KeyService:
    """The keys of devices."""

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

    @traced("upload_keys")
    async def upload(self, device: UUID, keys: Keys) -> bool:
        """Publish keys; returns whether another identity key took over, and what waited was thrown away."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "SELECT identity_key FROM identity_keys WHERE device_id = %s FOR UPDATE", (device,)
            )
            row = await cursor.fetchone()
            taken_over = row is not None and bytes(row[0]) != keys.identity
            if taken_over:
                await connection.execute("DELETE FROM one_time_pre_keys WHERE device_id = %s", (device,))
                await connection.execute("DELETE FROM messages WHERE device_id = %s", (device,))
            await self.store(connection, device, keys)
        if taken_over:
            self._metrics.key_taken_over()
        return taken_over

    @traced("fetch_key_bundles")
    async def bundles(self, user: UUID) -> list[tuple[UUID, bytes, bytes | None]]:
        """Each device of a user, its identity key, and one of its one-time pre-keys, which this uses up.

        Raises RefusedError (404) where the user has no device.
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
            raise RefusedError(404, "there is no such user")
        low = [device for device, _, _, left in rows if self._is_low(left)]
        for _ in low:
            self._metrics.prekeys_low()
        await self._notifications.notify(low, "PreKeyLow")
        return [(device, identity, pre_key) for device, identity, pre_key, _ in rows]

    @traced("check_pre_keys")
    async def check(self, device: UUID) -> int:
        """How many one-time pre-keys a device that connects has left."""
        left = await self.left(device)
        if self._is_low(left):
            self._metrics.prekeys_low()
        return left

    async def left(self, device: UUID) -> int:
        """How many one-time pre-keys a device has left."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT count(*) FROM one_time_pre_keys WHERE device_id = %s", (device,)
            )
            row = await cursor.fetchone()
        return row[0] if row else 0

    async def store(self, connection: Connection, device: UUID, keys: Keys) -> None:
        """Write the keys, within a transaction of the caller's."""
        await connection.execute(
            "INSERT INTO identity_keys (device_id, identity_key, registration_id) VALUES (%s, %s, 1)"
            " ON CONFLICT (device_id) DO UPDATE SET identity_key = excluded.identity_key",
            (device, keys.identity),
        )
        if keys.one_time:
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO one_time_pre_keys (device_id, id, public_key) VALUES (%s, %s, %s)"
                    " ON CONFLICT DO NOTHING",
                    [(device, number, key) for number, key in keys.one_time],
                )

    def _is_low(self, left: int) -> bool:
        return left < self._settings.pre_key_threshold

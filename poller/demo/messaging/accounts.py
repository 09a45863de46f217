"""Accounts, sign-up, login, logout, and authentication by access token."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass
from uuid import UUID

from psycopg.errors import UniqueViolation

from poller.demo.messaging.database import Pool, PooledConnection
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events.service import traced


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated user, and the device if the session has one."""

    user: UUID
    device: UUID | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a session."""

    access: str
    refresh: str


class AccountService:
    """Accounts and their sessions; access tokens live in this process, refresh tokens in the database."""

    def __init__(self, pool: Pool, metrics: EventMetrics, settings: MessagingSettings) -> None:
        self._pool = pool
        self._metrics = metrics
        self._settings = settings
        self._access: dict[str, tuple[Principal, float]] = {}
        """By access token: the principal, and the expiry time in monotonic seconds."""

    @traced("register_user")
    async def register(self, username: str, password: str) -> tuple[Principal, Tokens]:
        """Create an account. Raises RequestError (409) if the name exists."""
        hashed = await asyncio.to_thread(_hash, password, secrets.token_bytes(16))
        async with self._pool.connection() as connection:
            try:
                cursor = await connection.execute(
                    "INSERT INTO users (username, password_hash) VALUES (%s, %s) RETURNING id",
                    (username, hashed),
                )
            except UniqueViolation:
                raise RequestError(409, "the name exists already; choose another") from None
            row = await cursor.fetchone()
            assert row is not None  # noqa: S101 - RETURNING
            principal = Principal(row[0])
            tokens = await self._create_tokens(connection, principal)
        self._metrics.user_registered()
        return principal, tokens

    @traced("login_user")
    async def log_in(
        self, username: str, password: str, device: UUID | None = None
    ) -> tuple[Principal, Tokens]:
        """Log a user in. Raises RequestError (401) if the name, password or device is wrong."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT u.id, u.password_hash, d.id FROM users u"
                " LEFT JOIN devices d ON d.user_id = u.id AND d.id = %s WHERE u.username = %s",
                (device, username),
            )
            row = await cursor.fetchone()
            if row is None or not await asyncio.to_thread(_matches, password, row[1]) or row[2] != device:
                raise RequestError(401, "the name, password or device is wrong")
            principal = Principal(row[0], device)
            tokens = await self._create_tokens(connection, principal)
        self._metrics.logged_in()
        return principal, tokens

    @traced("refresh_session")
    async def refresh(self, token: str) -> tuple[Principal, Tokens]:
        """Exchange a refresh token for new tokens. Raises RequestError (401) if it is unknown."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "DELETE FROM refresh_tokens WHERE token_hash = %s AND expires_at > now()"
                " RETURNING user_id, device_id",
                (_digest(token),),
            )
            row = await cursor.fetchone()
            if row is None:
                raise RequestError(401, "the token is unknown or expired; log in again")
            principal = Principal(*row)
            tokens = await self._create_tokens(connection, principal)
        self._metrics.token_refreshed()
        return principal, tokens

    @traced("logout_user")
    async def log_out(self, access: str, refresh: str) -> None:
        """End a session. Raises RequestError (401) if the refresh token is unknown."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM refresh_tokens WHERE token_hash = %s", (_digest(refresh),)
            )
        self._access.pop(access, None)
        if cursor.rowcount == 0:
            raise RequestError(401, "the token is unknown or expired; log in again")
        self._metrics.logged_out()

    def authenticate(self, access: str) -> Principal:
        """Return the principal of an access token. Raises RequestError (401) if it is unknown or expired."""
        principal, until = self._access.get(access, (None, 0.0))
        if principal is None or until < time.monotonic():
            raise RequestError(401, "the token is unknown or expired; log in again")
        return principal

    async def create_tokens(self, principal: Principal) -> Tokens:
        """Create the tokens of a new session, for example for a new device."""
        async with self._pool.connection() as connection:
            return await self._create_tokens(connection, principal)

    @traced("run_session_cleanup")
    async def clean_up(self) -> None:
        """Delete expired tokens."""
        now = time.monotonic()
        for access in [access for access, (_, until) in self._access.items() if until < now]:
            del self._access[access]
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM refresh_tokens WHERE expires_at < now()")

    async def _create_tokens(self, connection: PooledConnection, principal: Principal) -> Tokens:
        tokens = Tokens(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        await connection.execute(
            "INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_at)"
            " VALUES (%s, %s, %s, now() + make_interval(secs => %s))",
            (_digest(tokens.refresh), principal.user, principal.device, self._settings.refresh_lifetime),
        )
        self._access[tokens.access] = principal, time.monotonic() + self._settings.session_lifetime
        return tokens


def _hash(password: str, salt: bytes) -> str:
    # A cheap hash, because simulated sign-ups are frequent and their passwords are not secret.
    return salt.hex() + hashlib.scrypt(password.encode(), salt=salt, n=1024, r=8, p=1, dklen=32).hex()


def _matches(password: str, hashed: str) -> bool:
    try:
        salt = bytes.fromhex(hashed[:32])
    except ValueError:
        return False
    return secrets.compare_digest(_hash(password, salt), hashed)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

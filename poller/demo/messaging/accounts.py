"""Accounts, sign-up, login, logout, and authentication by access token."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass
from uuid import UUID

from psycopg.errors import UniqueViolation

from poller.demo.messaging.database import Connection, Pool
from poller.demo.messaging.refused import RefusedError
from poller.demo.messaging.settings import Settings
from poller.events import EventMetrics
from poller.events.service import traced


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a user, and the device where it is known."""

    user: UUID
    device: UUID | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client shows from now on."""

    access: str
    refresh: str


class AccountService:
    """Accounts and their sessions; access tokens live in this process, refresh tokens in the database."""

    def __init__(self, pool: Pool, metrics: EventMetrics, settings: Settings) -> None:
        self._pool = pool
        self._metrics = metrics
        self._settings = settings
        self._known: dict[str, tuple[Principal, float]] = {}
        """Access tokens, whose they are and until when (monotonic seconds)."""

    @traced("register_user")
    async def register(self, username: str, password: str) -> tuple[Principal, Tokens]:
        """Make an account. Raises RefusedError (409) where the name is taken."""
        hashed = await asyncio.to_thread(_hashed, password, secrets.token_bytes(16))
        async with self._pool.connection() as connection:
            try:
                cursor = await connection.execute(
                    "INSERT INTO users (username, password_hash) VALUES (%s, %s) RETURNING id",
                    (username, hashed),
                )
            except UniqueViolation:
                raise RefusedError(409, "the name is taken") from None
            row = await cursor.fetchone()
            assert row is not None  # noqa: S101 - RETURNING
            principal = Principal(row[0])
            tokens = await self._let_in(connection, principal)
        self._metrics.user_registered()
        return principal, tokens

    @traced("login_user")
    async def log_in(
        self, username: str, password: str, device: UUID | None = None
    ) -> tuple[Principal, Tokens]:
        """Let a user in. Raises RefusedError (401) where name, password or device are not right."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT u.id, u.password_hash, d.id FROM users u"
                " LEFT JOIN devices d ON d.user_id = u.id AND d.id = %s WHERE u.username = %s",
                (device, username),
            )
            row = await cursor.fetchone()
            if row is None or not await asyncio.to_thread(_fits, password, row[1]) or row[2] != device:
                raise RefusedError(401, "name, password or device are wrong")
            principal = Principal(row[0], device)
            tokens = await self._let_in(connection, principal)
        self._metrics.logged_in()
        return principal, tokens

    @traced("refresh_session")
    async def refresh(self, token: str) -> tuple[Principal, Tokens]:
        """Exchange a refresh token for new ones. Raises RefusedError (401) where it is not known."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "DELETE FROM refresh_tokens WHERE token_hash = %s AND expires_at > now()"
                " RETURNING user_id, device_id",
                (_digest(token),),
            )
            row = await cursor.fetchone()
            if row is None:
                raise RefusedError(401, "the token is not known")
            principal = Principal(*row)
            tokens = await self._let_in(connection, principal)
        self._metrics.token_refreshed()
        return principal, tokens

    @traced("logout_user")
    async def log_out(self, access: str, refresh: str) -> None:
        """End a session. Raises RefusedError (401) where the refresh token is not known."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM refresh_tokens WHERE token_hash = %s", (_digest(refresh),)
            )
        self._known.pop(access, None)
        if cursor.rowcount == 0:
            raise RefusedError(401, "the token is not known")
        self._metrics.logged_out()

    def who(self, access: str) -> Principal:
        """Whose an access token is. Raises RefusedError (401) where it is not known, or not any more."""
        principal, until = self._known.get(access, (None, 0.0))
        if principal is None or until < time.monotonic():
            raise RefusedError(401, "the token is not known")
        return principal

    async def let_in(self, principal: Principal) -> Tokens:
        """Give a principal tokens, for a device that was just set up say."""
        async with self._pool.connection() as connection:
            return await self._let_in(connection, principal)

    @traced("run_session_cleanup")
    async def clean_up(self) -> None:
        """Forget the tokens that have expired."""
        now = time.monotonic()
        for access in [access for access, (_, until) in self._known.items() if until < now]:
            del self._known[access]
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM refresh_tokens WHERE expires_at < now()")

    async def _let_in(self, connection: Connection, principal: Principal) -> Tokens:
        tokens = Tokens(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        await connection.execute(
            "INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_at)"
            " VALUES (%s, %s, %s, now() + make_interval(secs => %s))",
            (_digest(tokens.refresh), principal.user, principal.device, self._settings.refresh_lifetime),
        )
        self._known[tokens.access] = principal, time.monotonic() + self._settings.session_lifetime
        return tokens


def _hashed(password: str, salt: bytes) -> str:
    # Little work for a password hash: sign-ups are many here, and nobody's password is real.
    return salt.hex() + hashlib.scrypt(password.encode(), salt=salt, n=1024, r=8, p=1, dklen=32).hex()


def _fits(password: str, hashed: str) -> bool:
    try:
        salt = bytes.fromhex(hashed[:32])
    except ValueError:
        return False
    return secrets.compare_digest(_hashed(password, salt), hashed)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

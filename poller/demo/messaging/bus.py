"""Publish/subscribe bus on PostgreSQL's NOTIFY and LISTEN."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import psycopg

from poller.demo.messaging.database import PooledConnection

logger = logging.getLogger(__name__)

_CHANNEL = "messaging"
_PAUSE = 1.0
"""Seconds between two attempts to connect."""


class Bus:
    """Publisher and subscriber; each has its own connection, separate from the pool."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._publisher: PooledConnection | None = None
        self._publishing = asyncio.Lock()
        self._listening = asyncio.Event()

    async def publish(self, payloads: Sequence[str]) -> None:
        """Send payloads to all subscribers. Raises psycopg.Error if the database is not available."""
        await self._execute(
            "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", _CHANNEL, list(payloads)
        )

    async def listen(self) -> AsyncIterator[str]:
        """Yield every payload published from now on; an empty text means that payloads may be missing."""
        while True:
            try:
                async with await self._connect("listener") as connection:
                    await connection.execute(f"LISTEN {_CHANNEL}")
                    self._listening.set()
                    yield ""
                    async for notify in connection.notifies():
                        yield notify.payload
            except psycopg.OperationalError as error:
                logger.warning("notifications cannot be received: %s", " ".join(str(error).split()))
            finally:
                self._listening.clear()
            await asyncio.sleep(_PAUSE)

    async def check(self) -> None:
        """Return when the bus can receive and publish; raises psycopg.Error if it cannot publish."""
        await self._listening.wait()
        await self._execute("SELECT 1")

    async def close(self) -> None:
        """Close the publisher's connection."""
        if self._publisher is not None:
            await self._publisher.close()

    async def _execute(self, statement: str, *arguments: object) -> None:
        async with self._publishing:
            try:
                if self._publisher is None:
                    self._publisher = await self._connect("publisher")
                await self._publisher.execute(statement.encode(), arguments)
            except psycopg.OperationalError:
                # The next call connects again.
                if self._publisher is not None:
                    with contextlib.suppress(psycopg.Error):
                        await self._publisher.close()
                    self._publisher = None
                raise

    async def _connect(self, part: str) -> PooledConnection:
        return await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=5, application_name=f"messaging {part}"
        )

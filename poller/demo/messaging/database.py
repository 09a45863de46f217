"""Connection pool of the messaging server."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

PooledConnection = AsyncConnection[tuple[Any, ...]]
Pool = AsyncConnectionPool[PooledConnection]


def make_pool(dsn: str, size: int, timeout: float) -> Pool:
    """Return a closed pool; a caller waits at most `timeout` seconds for a connection."""
    return AsyncConnectionPool(
        dsn,
        min_size=size,
        max_size=size,
        timeout=timeout,
        open=False,
        kwargs={"application_name": "messaging", "autocommit": True},
        name="messaging",
    )

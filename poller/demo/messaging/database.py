"""Connection pool of the messaging server, and the type of its rows."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

Row = tuple[Any, ...]
Connection = AsyncConnection[Row]
Pool = AsyncConnectionPool[Connection]


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

"""Observer of the connection counts of database pools (psycopg, SQLAlchemy)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poller.events.metrics import EventMetrics, PoolState


def watch_pool(metrics: EventMetrics, pool: Any) -> Callable[[], None]:
    """Export a pool's connection counts at every collection; return a function that stops it.

    The counts of several pools are added up. Supported are the pools of psycopg_pool, and the pools and
    engines of SQLAlchemy, each synchronous or asynchronous. SQLAlchemy does not expose the number of waiting
    callers. A closed psycopg pool counts as 0.

    Raises TypeError for other objects and for an engine whose pool keeps no counts (NullPool).
    """
    read = _reader(pool)
    if read is None:
        raise TypeError(
            f"{type(pool).__module__}.{type(pool).__qualname__} does not expose its connection counts; "
            "pass a pool of psycopg_pool or an engine of SQLAlchemy, "
            "or call EventMetrics.watch_db_pool with a function"
        )
    return metrics.watch_db_pool(read)


def _reader(pool: Any) -> Callable[[], PoolState] | None:
    if hasattr(pool, "get_stats"):
        return lambda: _psycopg(pool)
    if hasattr(getattr(pool, "pool", pool), "checkedout"):
        # Read `pool` each time, because `dispose` gives the engine a new pool.
        return lambda: _sqlalchemy(getattr(pool, "pool", pool))
    return None


def _psycopg(pool: Any) -> PoolState:
    if pool.closed:
        return PoolState(0, 0, 0)
    stats = pool.get_stats()
    # Connections that are being opened count as in use, because psycopg_pool includes them in its size.
    size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
    return PoolState(max(0, size - idle), idle, stats.get("requests_waiting", 0))


def _sqlalchemy(pool: Any) -> PoolState:
    return PoolState(pool.checkedout(), pool.checkedin(), None)

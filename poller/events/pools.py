"""Observer of the connection counts of database pools (psycopg, SQLAlchemy)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poller.events.metrics import EventMetrics, PoolState


def watch_pool(metrics: EventMetrics, pool: Any) -> Callable[[], None]:
    """Show a pool's connections at every collection, several pools in sum; what is returned ends it.

    Known are the pools of psycopg_pool and those of SQLAlchemy, or its engines, synchronous and asynchronous.
    SQLAlchemy does not tell how many callers wait. A pool that is closed counts no more.

    Raises TypeError for anything else, and for an engine whose pool keeps no count (NullPool).
    """
    read = _reader(pool)
    if read is None:
        raise TypeError(
            f"{type(pool).__module__}.{type(pool).__qualname__} does not tell its connections; give a pool "
            "of psycopg_pool or an engine of SQLAlchemy, or call EventMetrics.watch_db_pool with a function"
        )
    return metrics.watch_db_pool(read)


def _reader(pool: Any) -> Callable[[], PoolState] | None:
    if hasattr(pool, "get_stats"):
        return lambda: _psycopg(pool)
    if hasattr(getattr(pool, "pool", pool), "checkedout"):
        # An engine has another pool after `dispose`.
        return lambda: _sqlalchemy(getattr(pool, "pool", pool))
    return None


def _psycopg(pool: Any) -> PoolState:
    if pool.closed:
        return PoolState(0, 0, 0)
    told = pool.get_stats()
    # Those that are being opened are neither in use nor idle; psycopg_pool counts them as managed.
    size, idle = told.get("pool_size", 0), told.get("pool_available", 0)
    return PoolState(max(0, size - idle), idle, told.get("requests_waiting", 0))


def _sqlalchemy(pool: Any) -> PoolState:
    return PoolState(pool.checkedout(), pool.checkedin(), None)

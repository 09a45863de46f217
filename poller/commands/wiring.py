"""Make the objects of one process from its settings, and join them."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from poller.admission import Admission
from poller.errors import ConfigError, Problem, StateInUseError
from poller.folderlock import make_folder
from poller.memory import Memory
from poller.password import password_from
from poller.replica import Replica
from poller.restraint import Restraint
from poller.session import is_conninfo, misunderstood
from poller.settings import Settings
from poller.sqlcomment import Tags, untagged
from poller.store import SnapshotStore
from poller.tracing import traceparent
from poller.whereabouts import Sighting
from poller.words import counted

if TYPE_CHECKING:
    from poller.export import Push
    from poller.spool import Spool

logger = logging.getLogger(__name__)


def version() -> str:
    """The version of this package, as installed."""
    return importlib.metadata.version("obscura-poller")


def open_push(settings: Settings, store: SnapshotStore, *, periodic: bool) -> Push | None:
    """Begin to push what `store` shows; None without an endpoint (logs-only mode: no SDK is imported).

    Raises ConfigError where the endpoint's variables or the state folder cannot be used.
    """
    if settings.endpoint is None:
        return None
    import math

    from poller.export import Push, resource
    from poller.instruments import CatalogInstruments, read_store
    from poller.querymetrics import QueryMetrics

    own = settings.self_metrics != "off"
    spool = open_spool(settings, shared=not periodic)
    described = resource(settings.service_name, settings.instance, version())
    push = Push(
        settings.endpoint,
        described,
        spool,
        interval=settings.export_interval if periodic else math.inf,
        timeout=settings.export_timeout,
    )
    instruments = CatalogInstruments(
        functools.partial(read_store, store),
        described,
        version(),
        query_metrics=QueryMetrics() if own else None,
        starts=periodic,
    )
    push.add(instruments.collect)
    return push


def open_spool(settings: Settings, *, shared: bool) -> Spool:
    """Open what keeps the undelivered; `shared`, one that another process has is replaced by memory."""
    from poller.spool import Spool

    def opened(folder: Path | None) -> Spool:
        return Spool(folder, max_size=settings.spool_max_size, max_age=settings.spool_max_age)

    try:
        spool = opened(settings.state_dir)
        if waiting := spool.requests:
            logger.info(
                "sending %s left over from the previous run first",
                counted(waiting, "request"),
                extra={"state_dir": str(settings.state_dir)},
            )
        return spool
    except StateInUseError as error:
        if not shared:
            raise
        logger.warning("%s; what the collector does not take now is not kept", error)
        return opened(None)


def open_memory(settings: Settings) -> Memory | None:
    """Where values outlive a restart; None without POLLER_STATE_DIR. Raises ConfigError."""
    if settings.state_dir is None:
        return None
    make_folder(settings.state_dir)
    # Without a secret, so that a rotated password makes no other database of it.
    libpq = [os.environ.get(f"PG{name}", "") for name in ("HOST", "HOSTADDR", "PORT", "DATABASE", "SERVICE")]
    return Memory(settings.state_dir, " ".join([settings.shown("database_url"), *libpq]))


def open_replica(
    settings: Settings, restraint: Restraint, on_sighting: Callable[[Sighting], None]
) -> Replica:
    """Prepare the connection; raises ConfigError where no database is named that libpq understands."""
    conninfo = settings.conninfo()
    if not is_conninfo(conninfo):
        where = settings.source("database_url").name
        raise ConfigError([Problem(where, "; ".join(misunderstood(conninfo)))])
    command = settings.password_command
    return Replica(
        settings.conninfo,
        connect_timeout=settings.connect_timeout,
        lock_timeout=settings.lock_timeout,
        password=password_from(command.reveal()) if command else None,
        admission=Admission(
            settings.require_standby,
            settings.max_replay_lag,
            restraint.hold,
            count_active=settings.max_active_backends is not None,
            strict=settings.strict,
            report_lag=settings.self_metrics != "off",
        ),
        on_sighting=on_sighting,
        tags=tags(settings.sql_comments),
        max_result_bytes=settings.max_result_size,
    )


def tags(comments: str) -> Tags:
    """What a comment on the SQL of a query tells, by POLLER_SQL_COMMENTS."""
    if comments == "off":
        return untagged
    if comments == "name":
        return lambda name: {"query": name}
    return lambda name: {"query": name, **traceparent()}

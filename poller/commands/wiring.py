"""Make the objects of one process from its settings, and join them."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.metrics import NoOpMeter

from poller.admission import Admission
from poller.announcer import Announcer
from poller.catalog import Catalog
from poller.contest import contested, without
from poller.definition import format_duration
from poller.errors import ConfigError, Problem, StateInUseError
from poller.glance import Glance, Glances
from poller.memory import Memory
from poller.password import password_from
from poller.polling import poll
from poller.query import STALE_AFTER_INTERVALS, QueryDefinition
from poller.replica import Replica
from poller.replicagauges import register_replica_gauges
from poller.restraint import Restraint
from poller.result import PollResult
from poller.session import NOT_UNDERSTOOD, WRITE_INSTEAD, is_conninfo
from poller.settings import Settings
from poller.sqlcomment import Tags, untagged
from poller.store import SnapshotStore
from poller.tracing import TickTrace, Tracing, traceparent
from poller.whereabouts import Sighting, Whereabouts

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from poller.export import Push
    from poller.selfmetrics import SelfMetrics
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

    from poller import exportmetrics
    from poller.encoding import EncodedMetric, encoded
    from poller.export import Push, resource
    from poller.points import Points
    from poller.standing import Standing

    points = Points(starts=periodic)
    standing = Standing()

    def produce(at: int) -> Iterator[EncodedMetric]:
        now = time.monotonic()
        yield from map(encoded, points.metrics(store.shown(now), at))
        yield from map(encoded, standing.gauges(store.freshness(now), at))

    spool = open_spool(settings, shared=not periodic)
    push = Push(
        settings.endpoint,
        resource(settings.service_name, settings.instance, version()),
        spool,
        interval=settings.export_interval if periodic else math.inf,
        timeout=settings.export_timeout,
        produce=produce,
    )
    exportmetrics.register(push.meter, push.tally, spool)
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
                "%d requests of before go first", waiting, extra={"state_dir": str(settings.state_dir)}
            )
        return spool
    except StateInUseError as error:
        if not shared:
            raise
        logger.warning("%s; what the collector does not take now is not kept", error)
        return opened(None)


def open_memory(settings: Settings) -> Memory | None:
    """Where values outlive a restart; None without POLLER_STATE_DIR."""
    if settings.state_dir is None:
        return None
    # Without a secret, so that a rotated password makes no other database of it.
    libpq = [os.environ.get(f"PG{name}", "") for name in ("HOST", "HOSTADDR", "PORT", "DATABASE", "SERVICE")]
    return Memory(settings.state_dir, " ".join([settings.shown("database_url"), *libpq]))


class Pipe:
    """The one way through: ask the replica, keep what is good, count, announce.

    `run` sends every tick through it and `poll` sends one.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        store: SnapshotStore,
        push: Push | None,
        *,
        daemon: bool,
        memory: Memory | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare everything; nothing is opened. Raises ConfigError where no database is named.

        A `daemon` tells in the log where it polls, and the values too where nothing is pushed. Good values
        are kept in `memory`, where there is one.
        """
        self.meter: Meter = push.meter if push else NoOpMeter("poller")
        self.store = store
        self._metrics = _own_metrics(push) if push else None
        self._whereabouts = Whereabouts(_longest_absence(catalog.queries), announce_first=daemon)
        register_replica_gauges(self.meter, self._whereabouts)
        self._restraint = Restraint(settings.max_duty_cycle, settings.max_active_backends)
        self._tracing = tracing or Tracing()

        def sighted(sighting: Sighting) -> None:
            self._whereabouts.note(sighting)
            self._tracing.note(sighting)

        self.replica = open_replica(settings, self._restraint, sighted)
        self._announcer = Announcer(every_result=daemon and push is None)
        self._memory = memory
        self._last: dict[str, PollResult] = {}
        self._glances = Glances()

    def tick(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[PollResult]:
        """Poll `queries` once."""
        with self._tracing.tick(queries) as span:
            return self._tick(queries, on_answer, span)

    def _tick(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None], span: TickTrace
    ) -> list[PollResult]:
        results = poll(queries, span.asking(self.replica.ask), on_answer)
        now = time.monotonic()
        self.store.put(results, now)
        if self._memory is not None and any(result.outcome == "ok" for result in results):
            self._memory.keep(list(self.store.good(now)))
        if claims := contested(self.store.shown(now)):
            results = [without(result, claims) for result in results]
        span.tell(results)
        for result in results:
            if self._metrics is not None:
                self._metrics.record(result, span.context(result.query.name))
            self._restraint.note(result)
        self._announcer.tick(results, now, within=span.of)
        self._announcer.values(self.store.freshness(now))
        self._last = {**self._last, **{result.query.name: result for result in results}}
        return results

    def overran(self, tick: str) -> None:
        """Count one tick that was left out."""
        if self._metrics is not None:
            self._metrics.overrun(tick)

    def swap(self, queries: Sequence[QueryDefinition], dropped: Collection[str]) -> None:
        """Go on with other queries; all that is known of those in `dropped` is let go. Not during a tick."""
        self.store.swap(queries, dropped)
        self._restraint.forget(dropped)
        self._announcer.forget(dropped)
        self._whereabouts.max_age = _longest_absence(queries)
        self._last = {name: result for name, result in self._last.items() if name not in dropped}

    def glances(self, next_runs: Mapping[str, float]) -> Sequence[Glance]:
        """How every query stands; `next_runs` is by query, in seconds since 1970.

        It is the same object for as long as nothing is different.
        """
        now = time.monotonic()
        return self._glances.look(self.store.freshness(now), self.store.good(now), self._last, next_runs)

    def server(self) -> str:
        """The server that answered last, in a line; empty where none has for too long."""
        seen = self._whereabouts.seen(time.monotonic())
        if seen is None:
            return ""
        lag = "unknown lag" if seen.lag is None else f"{format_duration(round(seen.lag, 1))} behind"
        return f"{seen.role} {seen.place}, {lag}" if seen.standby else f"{seen.role} {seen.place}"


def _own_metrics(push: Push) -> SelfMetrics:
    from poller.selfmetrics import SelfMetrics

    metrics = SelfMetrics(push.preferences)
    push.add(metrics.collect)
    return metrics


def _longest_absence(queries: Sequence[QueryDefinition]) -> float:
    """Seconds without an answer after which nothing is told of the server any more."""
    return STALE_AFTER_INTERVALS * min((query.interval for query in queries), default=0.0)


def open_replica(
    settings: Settings, restraint: Restraint, on_sighting: Callable[[Sighting], None]
) -> Replica:
    """Prepare the connection; raises ConfigError where no database is named that libpq understands."""
    if not is_conninfo(settings.conninfo()):
        where = settings.source("database_url").name
        raise ConfigError([Problem(where, f"{NOT_UNDERSTOOD}; {WRITE_INSTEAD}")])
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
        ),
        on_sighting=on_sighting,
        tags=tags(settings.sql_comments),
    )


def tags(comments: str) -> Tags:
    """What a comment on the SQL of a query tells, by POLLER_SQL_COMMENTS."""
    if comments == "off":
        return untagged
    if comments == "name":
        return lambda name: {"query": name}
    return lambda name: {"query": name, **traceparent()}

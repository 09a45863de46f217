"""Poll cycle of one tick: fetch, map, store, count, log and save."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry.metrics import NoOpMeter

from poller.config.settings import Settings
from poller.daemon.build import open_replica
from poller.model.catalog import Catalog
from poller.model.duration import format_duration
from poller.model.query import STALE_AFTER_INTERVALS, QueryDefinition
from poller.model.result import PollResult
from poller.polling.duplicates import without
from poller.polling.poll import poll
from poller.polling.state_file import StateFile
from poller.polling.status import QueryStatus, QueryStatuses
from poller.polling.store import ResultStore
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.replica_metrics import register_replica_gauges
from poller.telemetry.traces import TickTrace, Tracing

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from poller.otlp.exporter import MetricExporter
    from poller.telemetry.poll_metrics import SelfMetrics


class PollCycle:
    """The code path of every poll: query the replica, store good values, count and log.

    Both `run` and `poll` use it.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        store: ResultStore,
        push: MetricExporter | None,
        *,
        daemon: bool,
        memory: StateFile | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare everything without opening a connection. Raises ConfigError if no database is named.

        A `daemon` also logs which server it polls, and logs all values if nothing is pushed. Good values are
        saved in `memory`, if given.
        """
        own = push is not None and settings.self_metrics != "off"
        self.meter: Meter = push.meter if push is not None and own else NoOpMeter("poller")
        self.store = store
        self._metrics = _own_metrics(self.meter) if own else None
        self._tracker = ServerTracker(_longest_absence(catalog.queries), announce_first=daemon)
        register_replica_gauges(self.meter, self._tracker)
        self._breaker = CircuitBreaker(settings.max_duty_cycle, settings.max_active_backends)
        self._tracing = tracing or Tracing()

        def sighted(server_info: ServerInfo) -> None:
            self._tracker.record(server_info)
            self._tracing.note(server_info)

        self.replica = open_replica(settings, self._breaker, sighted)
        self._polls_log = PollLog(every_result=daemon and push is None, repeats=daemon)
        self._memory = memory
        self._lock = threading.Lock()
        self._last: dict[str, PollResult] = {}
        self._last_reported: dict[str, PollResult] | None = None
        self._statuses = QueryStatuses()

    def run(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[PollResult]:
        """Poll `queries` once and return their results; `on_answer` is called with each answered name."""
        with self._tracing.tick(queries) as span:
            return self._tick(queries, on_answer, span)

    def _tick(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None], span: TickTrace
    ) -> list[PollResult]:
        results = poll(queries, span.asking(self.replica.fetch), on_answer)
        now = time.monotonic()
        fresh = self.store.put(results, now)
        if self._memory is not None and fresh:
            self._memory.add(fresh, lambda: list(self.store.good(now)))
        if claims := self.store.contested(results, now):
            results = [without(result, claims) for result in results]
        span.finish(results)
        for result in results:
            if self._metrics is not None:
                self._metrics.record(result, span.context(result.query.name))
            self._breaker.record(result)
        self._polls_log.tick(results, now, within=span.of)
        with self._lock:
            self._last.update((result.query.name, result) for result in results)
            self._last_reported = None
        return results

    def announce_stale(self) -> None:
        """Log the queries whose values are withheld from now on; called by a timer, because age decides."""
        self._polls_log.values(self.store.freshness(time.monotonic()))

    def overran(self, tick: str) -> None:
        """Count one tick that was skipped."""
        if self._metrics is not None:
            self._metrics.overrun(tick)

    def swap(self, queries: Sequence[QueryDefinition], dropped: Collection[str]) -> None:
        """Replace the queries, and discard all data of those in `dropped`. Must not run during a tick."""
        self.store.swap(queries, dropped)
        self._breaker.reset(dropped)
        self._polls_log.reset(dropped)
        self._tracker.max_age = _longest_absence(queries)
        if self._memory is not None:
            self._memory.invalidate()
        with self._lock:
            self._last = {name: result for name, result in self._last.items() if name not in dropped}
            self._last_reported = None

    def statuses(self, next_runs: Mapping[str, float]) -> Sequence[QueryStatus]:
        """Return the status of every query; `next_runs` is by query, in seconds since 1970.

        Without a change it returns the same object.
        """
        now = time.monotonic()
        with self._lock:
            # The copy is made here, because the work of a tick must not grow with the number of queries.
            if self._last_reported is None:
                self._last_reported = self._last.copy()
            last = self._last_reported
        return self._statuses.current(self.store.freshness(now), self.store.good(now), last, next_runs)

    def server(self) -> str:
        """Describe the server that answered last in one line; empty if none answered recently."""
        current = self._tracker.current(time.monotonic())
        if current is None:
            return ""
        lag = "unknown lag" if current.lag is None else f"{format_duration(round(current.lag, 1))} behind"
        return (
            f"{current.role} {current.place}, {lag}" if current.standby else f"{current.role} {current.place}"
        )


def _own_metrics(meter: Meter) -> SelfMetrics:
    from poller.telemetry.poll_metrics import SelfMetrics

    return SelfMetrics(meter)


def _longest_absence(queries: Sequence[QueryDefinition]) -> float:
    """Return the seconds without an answer after which the server is no longer reported."""
    return STALE_AFTER_INTERVALS * min((query.interval for query in queries), default=0.0)

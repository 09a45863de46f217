"""Poll cycle of one tick: fetch, map, store and observe the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from poller.model.query import STALE_AFTER_INTERVALS, QueryDefinition
from poller.model.result import PollResult
from poller.model.tick import Tick
from poller.polling.poll import QuerySource, poll
from poller.polling.status import QueryStatus, QueryStatuses
from poller.polling.store import ResultStore
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.server_tracker import ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.poll_metrics import PollMetrics
from poller.telemetry.traces import Tracing


class PollObserver(Protocol):
    """Observer of the results of each tick, from which duplicate series are removed."""

    def observe(self, results: Sequence[PollResult], /) -> None:
        """Record the results of one tick, while its span is the current one."""


class PollCycle:
    """The code path of every poll: query the source, store good values, count and log.

    Both `run` and `poll` use it.
    """

    def __init__(
        self,
        source: QuerySource,
        store: ResultStore,
        *,
        tracker: ServerTracker,
        tracing: Tracing,
        metrics: PollMetrics | None,
        breaker: CircuitBreaker,
        log: PollLog,
    ) -> None:
        """Prepare; without `metrics`, nothing is counted."""
        self.source = source
        self.store = store
        self._tracker = tracker
        self._tracing = tracing
        self._metrics = metrics
        self._log = log
        self._statuses = QueryStatuses()
        # The spans come first, because metrics and log records refer to them.
        observers: tuple[PollObserver | None, ...] = (tracing, metrics, breaker, log, self._statuses)
        self._observers = [observer for observer in observers if observer is not None]
        self._histories = (breaker, log, self._statuses)

    def run(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[PollResult]:
        """Poll `queries` once and return their results; `on_answer` is called with each answered name."""
        with self._tracing.tick(queries):
            results = self.store.put(poll(queries, self.source, on_answer), time.monotonic())
            for observer in self._observers:
                observer.observe(results)
        return results

    def run_ticks(
        self, ticks: Sequence[Tick], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[PollResult]:
        """Run every tick once and return the results without series that another query reports too.

        `run` cannot remove the duplicates of a tick that runs later.
        """
        results = [result for tick in ticks for result in self.run(tick.queries, on_answer)]
        return self.store.without_duplicates(results, time.monotonic())

    def swap(self, queries: Sequence[QueryDefinition], dropped: Collection[str]) -> None:
        """Replace the queries, and discard all data of those in `dropped`. Must not run during a tick."""
        self.store.swap(queries, dropped)
        self._tracker.max_age = longest_absence(queries)
        for history in self._histories:
            history.reset(dropped)

    def overran(self, tick: str) -> None:
        """Count one tick that was skipped."""
        if self._metrics is not None:
            self._metrics.overrun(tick)

    def log_stale(self) -> None:
        """Log the queries whose values are withheld from now on; called by a timer, because age decides."""
        self._log.values(self.store.freshness(time.monotonic()))

    def statuses(self, next_runs: Mapping[str, float]) -> Sequence[QueryStatus]:
        """Return the status of every query; `next_runs` is by query, in seconds since 1970.

        Without a change it returns the same object.
        """
        now = time.monotonic()
        return self._statuses.current(self.store.freshness(now), self.store.good(now), next_runs)

    def server(self) -> str:
        """Describe the server that answered last in one line; empty if none answered recently."""
        current = self._tracker.current(time.monotonic())
        return str(current) if current else ""


def longest_absence(queries: Sequence[QueryDefinition]) -> float:
    """Return the seconds without an answer after which the server is no longer reported."""
    return STALE_AFTER_INTERVALS * min((query.interval for query in queries), default=0.0)

"""Poll cycle of one tick: fetch, map, store and observe the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from poller.model.errors import PollError
from poller.model.leader import NO_ELECTION, Leadership
from poller.model.query import STALE_AFTER_INTERVALS, AttributeValue, QueryDefinition
from poller.model.result import Freshness, PollResult
from poller.model.tick import Tick
from poller.polling.poll import QuerySource, poll
from poller.polling.status import QueryStatus, QueryStatuses
from poller.polling.store import ResultStore
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.plan_changes import PlanChanges
from poller.telemetry.poll_log import PollLog
from poller.telemetry.poll_metrics import TargetPolls
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
        metrics: TargetPolls | None,
        breaker: CircuitBreaker,
        log: PollLog,
        more: Sequence[PollObserver] = (),
        attributes: Mapping[str, AttributeValue] = MappingProxyType({}),
        leadership: Leadership = NO_ELECTION,
    ) -> None:
        """Prepare; without `metrics`, nothing is counted. Results are dropped unless this process leads then.

        `more` observe the results after all others. Each data point has `attributes` as well.
        """
        self.source = source
        self.store = store
        self._tracker = tracker
        self._tracing = tracing
        self._metrics = metrics
        self._log = log
        self._more = more
        self._attributes = attributes
        self._leadership = leadership
        self._statuses = QueryStatuses()
        self.changes = 0
        """Number of recorded ticks and replacements; equal numbers mean that only time has passed."""
        self.up: bool | None = None
        """Whether the last tick reached the database; None before the first."""
        # A swap may happen while the server answers, but not while the answers are recorded.
        self._lock = threading.Lock()
        # The spans come first, because metrics and log records refer to them.
        plans = PlanChanges() if metrics is None else PlanChanges(metrics.plan_changed)
        observers: tuple[PollObserver | None, ...] = (
            tracing,
            metrics,
            breaker,
            log,
            plans,
            self._statuses,
            *more,
        )
        self._observers = [observer for observer in observers if observer is not None]
        self._histories = (breaker, log, plans, self._statuses)

    def run(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[PollResult]:
        """Poll `queries` once and return their results; `on_answer` is called with each answered name."""
        with self._tracing.tick(queries):
            polled = poll(queries, self.source, on_answer)
            if not self._leadership.leads:
                return []
            if self._attributes:
                polled = [with_attributes(result, self._attributes) for result in polled]
            with self._lock:
                results = self.store.put(polled, time.monotonic())
                self._note(polled)
                for observer in self._observers:
                    observer.observe(results)
        return results

    def fail(self, queries: Sequence[QueryDefinition], error: PollError) -> list[PollResult]:
        """Record that `queries` failed without a try; return their results."""
        now = time.monotonic()
        failed = [
            PollResult(query, time.time(), 0.0, "failed", error=error, answered=now) for query in queries
        ]
        with self._lock:
            results = self.store.put(failed, now)
            self._note(failed)
            for observer in self._observers:
                if observer is not self._tracing:
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

    def note(self, result: PollResult) -> None:
        """Record the result of a tick without values; only `more` observe it."""
        with self._lock:
            self._note([result])
            for observer in self._more:
                observer.observe([result])

    def swap(self, queries: Sequence[QueryDefinition], dropped: Collection[str]) -> None:
        """Replace the queries, and discard all data of those in `dropped`, also of a tick in progress."""
        with self._lock:
            self.store.swap(queries, dropped)
            self._tracker.max_age = longest_absence(queries)
            self.changes += 1
            for history in self._histories:
                history.reset(dropped)

    def overran(self, tick: str) -> None:
        """Count one tick that was skipped."""
        if self._metrics is not None:
            self._metrics.overrun(tick)

    def newly_withheld(self) -> list[Freshness]:
        """Return the queries whose values are withheld from now on; a timer calls it, because age decides."""
        return self._log.newly_withheld(self.store.freshness(time.monotonic()))

    def statuses(self, next_runs: Mapping[str, float]) -> Sequence[QueryStatus]:
        """Return the status of every query; `next_runs` is by query, in seconds since 1970.

        Without a change it returns the same object.
        """
        now = time.monotonic()
        return self._statuses.current(self.store.freshness(now), self.store.good(now), next_runs)

    def read_statuses(self, next_runs: Mapping[str, float]) -> Sequence[QueryStatus]:
        """Return the same without storing it, because the statuses of many targets need much memory."""
        now = time.monotonic()
        return self._statuses.read(self.store.freshness(now), self.store.good(now), next_runs)

    def server(self) -> str:
        """Describe the server that answered last in one line; empty if none answered recently."""
        return str(self.server_info(time.monotonic()) or "")

    def server_info(self, now: float) -> ServerInfo | None:
        """Return the server that answered last; None if none answered recently (`now` is monotonic)."""
        return self._tracker.current(now)

    def _note(self, results: Sequence[PollResult]) -> None:
        self.changes += 1
        self.up = not any(result.error_type == "unavailable" for result in results)


def with_attributes(result: PollResult, attributes: Mapping[str, AttributeValue]) -> PollResult:
    """Return `result` with more attributes on each sample."""
    samples = [replace(sample, attributes={**sample.attributes, **attributes}) for sample in result.samples]
    return result._replace(samples=tuple(samples))


def longest_absence(queries: Sequence[QueryDefinition]) -> float:
    """Return the seconds without an answer after which the server is no longer reported."""
    return STALE_AFTER_INTERVALS * min((query.interval for query in queries), default=0.0)

"""Circuit breaker per query: skip queries that are too slow, fail too often or cost too much."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult, Skip, own_failure
from poller.model.retry import RetryConfig

FAILURES_BEFORE_A_BREAK = 3
LONGEST_BREAK_SECONDS = 3600.0
EXPENSIVE_SECONDS = 1.0
"""A query whose last exact run took this long or longer waits while the server is busy."""
_JITTER = 0.1
"""Share of the interval by which a tick may be early."""


@dataclass(slots=True)
class _Record:
    ended: float = 0.0
    duration: float = 0.0
    failures: int = 0
    error: PollError | None = None


class CircuitBreaker:
    """Decides from each query's history whether it may run; the history ends with the process.

    Duty cycle: if a run took d seconds, more than `max_duty_cycle` of the interval, the next run starts no
    earlier than d / `max_duty_cycle` seconds after the start of that run.
    Breaker: after FAILURES_BEFORE_A_BREAK failures in a row, the query is tried after 2, 4, 8 ... intervals,
    and at least once in LONGEST_BREAK_SECONDS (or in its interval, if that is longer). Each of these tries is
    the half-open probe; one success closes the breaker. A result that is too large opens the breaker at once.
    A timeout counts as a failure even if an estimate replaced the result. Failures that the query did not
    cause (no connection, shutdown) do not count.
    Busy: while more than `max_active_backends` other backends are active, a query whose last run took
    EXPENSIVE_SECONDS or longer waits.
    """

    def __init__(self, max_duty_cycle: float, max_active_backends: int | None = None) -> None:
        """Start without history; `max_duty_cycle` is a share, above 0 and at most 1."""
        self._max_duty_cycle = max_duty_cycle
        self._max_active = max_active_backends
        self._records: dict[str, _Record] = {}

    def check(self, query: QueryDefinition, now: float, active: int | None) -> Skip | None:
        """Return why `query` must wait at `now` (monotonic seconds) with `active` other backends, or None."""
        record = self._records.get(query.name)
        if record is None:
            return None
        # The texts contain no remaining time: it would be outdated when they are read.
        pause = self._break(query, record)
        if pause - query.interval * _JITTER > now - record.ended:
            detail = f"failed {record.failures} times in a row, tried at most once in {_format_pause(pause)}"
            error = record.error
            cause = " ".join(part for part in (error.sqlstate, error.message) if part) if error else ""
            return Skip("breaker", f"{detail}: {cause}" if cause else detail)
        share = record.duration / self._max_duty_cycle
        wait = share - record.duration - (now - record.ended)
        # A quick query may run twice in quick succession, for example after an omitted tick: it is cheap.
        if wait > 0 and record.duration > self._max_duty_cycle * query.interval:
            return Skip(
                "duty_cycle",
                f"took {_format_pause(record.duration)} and may take {self._max_duty_cycle:.0%} of the time, "
                f"polled at most once in {_format_pause(share)}; make it cheaper or its interval longer",
            )
        busy = self._max_active is not None and active is not None and active > self._max_active
        if busy and record.duration >= EXPENSIVE_SECONDS:
            return Skip(
                "busy",
                f"{active} backends are active, the limit is {self._max_active}, "
                f"and it took {_format_pause(record.duration)} last time",
            )
        return None

    def observe(self, results: Iterable[PollResult]) -> None:
        """Record the results of one tick."""
        for result in results:
            self.record(result)

    def record(self, result: PollResult, now: float | None = None) -> None:
        """Record the result of a poll; `now` is in monotonic seconds."""
        failed = own_failure(result)
        if failed is None:
            return
        record = self._records.get(result.query.name)
        if record is None:
            record = self._records[result.query.name] = _Record()
        record.ended = time.monotonic() if now is None else now
        record.duration = result.duration
        record.error = result.error
        record.failures = record.failures + 1 if failed else 0
        if result.error_type == "too_large":
            # The next try would return the same rows, and each try closes the connection.
            record.failures = max(record.failures, FAILURES_BEFORE_A_BREAK)

    def reset(self, names: Iterable[str]) -> None:
        """Delete the history of these queries, because they were removed or changed."""
        for name in names:
            self._records.pop(name, None)

    def _break(self, query: QueryDefinition, record: _Record) -> float:
        """Return how many seconds after its last try a failing query has to wait."""
        excess = record.failures - FAILURES_BEFORE_A_BREAK
        if excess < 0:
            return 0.0
        longest = max(LONGEST_BREAK_SECONDS, query.interval)
        return RetryConfig(2 * query.interval, longest).pause(excess)


def _format_pause(seconds: float) -> str:
    return format_duration(round(seconds, 1) if seconds < 60 else round(seconds))

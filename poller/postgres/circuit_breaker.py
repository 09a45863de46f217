"""Circuit breaker per query: skip queries that are too slow, fail too often or cost too much."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult, Skip, own_failure

FAILURES_BEFORE_A_BREAK = 3
LONGEST_BREAK_SECONDS = 3600.0
EXPENSIVE_SECONDS = 1.0
"""A query whose last exact run took as long waits while the server is busy."""
_JITTER = 0.1
"""Share of an interval by which a tick may be early against the one before."""


@dataclass(slots=True)
class _Record:
    ended: float = 0.0
    duration: float = 0.0
    failures: int = 0
    error: PollError | None = None


class Restraint:
    """What each query's record allows; remembers for as long as the process runs.

    Duty cycle: a query that ran for d seconds, more than `max_duty_cycle` of its interval, is not run again
    before d / `max_duty_cycle` have passed since it began.
    Breaker: after FAILURES_BEFORE_A_BREAK failures in a row it is tried after 2, 4, 8 ... intervals, at least
    once in LONGEST_BREAK_SECONDS (or in its interval, if that is longer): each of these tries is the
    half-open probe, and one success closes the breaker. A result that is too large opens it at once. A
    timeout that an estimate made up for is a failure too; one that is no query's fault (no connection, told
    to stop) counts for nothing.
    Busy: while more than `max_active_backends` others are active, a query that last took EXPENSIVE_SECONDS
    or longer waits.
    """

    def __init__(self, max_duty_cycle: float, max_active_backends: int | None = None) -> None:
        """`max_duty_cycle` is a share of 1 and above 0."""
        self._max_duty_cycle = max_duty_cycle
        self._max_active = max_active_backends
        self._records: dict[str, _Record] = {}

    def hold(self, query: QueryDefinition, now: float, active: int | None) -> Skip | None:
        """Why `query` must not run at `now` (monotonic seconds) and with `active` other backends."""
        record = self._records.get(query.name)
        if record is None:
            return None
        # The texts name no time that is left: they are read after they were written.
        pause = self._break(query, record)
        if pause - query.interval * _JITTER > now - record.ended:
            told = f"failed {record.failures} times in a row, tried at most once in {_spoken(pause)}"
            error = record.error
            what = " ".join(part for part in (error.sqlstate, error.message) if part) if error else ""
            return Skip("breaker", f"{told}: {what}" if what else told)
        share = record.duration / self._max_duty_cycle
        wait = share - record.duration - (now - record.ended)
        # A quick one that is due twice in a moment, as after a tick that was left out, costs nobody anything.
        if wait > 0 and record.duration > self._max_duty_cycle * query.interval:
            return Skip(
                "duty_cycle",
                f"took {_spoken(record.duration)} and may take {self._max_duty_cycle:.0%} of the time, "
                f"polled at most once in {_spoken(share)}; make it cheaper or its interval longer",
            )
        busy = self._max_active is not None and active is not None and active > self._max_active
        if busy and record.duration >= EXPENSIVE_SECONDS:
            return Skip(
                "busy",
                f"{active} backends are active, the limit is {self._max_active}, "
                f"and it took {_spoken(record.duration)} last time",
            )
        return None

    def note(self, result: PollResult, now: float | None = None) -> None:
        """Take in what a poll came to; `now` is in monotonic seconds."""
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
            # The same rows would come again, and each try closes the connection.
            record.failures = max(record.failures, FAILURES_BEFORE_A_BREAK)

    def forget(self, names: Iterable[str]) -> None:
        """Begin anew with these queries: they are gone, or ask something else now."""
        for name in names:
            self._records.pop(name, None)

    def _break(self, query: QueryDefinition, record: _Record) -> float:
        """Seconds since its last try that a failing query has to wait."""
        excess = record.failures - FAILURES_BEFORE_A_BREAK
        if excess < 0:
            return 0.0
        longest = max(LONGEST_BREAK_SECONDS, query.interval)
        # Bounded before it is a float: a day of failures would overflow it.
        wait: float = query.interval * 2.0 ** min(excess + 1, 20)
        return min(wait, longest)


def _spoken(seconds: float) -> str:
    return format_duration(round(seconds, 1) if seconds < 60 else round(seconds))

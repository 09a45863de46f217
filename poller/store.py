"""Hold the last good samples of every query; the one place where the two clocks meet."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from poller.model import PollResult, QueryDefinition


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old a query's values are, at one instant."""

    query: QueryDefinition
    last_success: float | None
    """Seconds since 1970, UTC; None before the first success."""
    age: float | None
    """Seconds since the last success, on a clock that is never set."""
    stale: bool
    """Whether the values are withheld: older than `max_age`, or never there."""
    series: int
    """Series shown at this instant."""
    estimated: bool | None = None
    """Whether what is shown comes from the estimate; None while nothing is shown."""


class SnapshotStore:
    """The last good result of each query, kept by the poll's clock and shown by the export's clock.

    A failed or skipped poll changes nothing here; age alone takes a value away. Time is a parameter:
    `now` is in seconds on a monotonic clock, the same one in every call.
    """

    def __init__(self, queries: Iterable[QueryDefinition]) -> None:
        self._lock = threading.Lock()
        self._queries = tuple(queries)
        self._good: dict[str, tuple[PollResult, float]] = {}

    def put(self, results: Sequence[PollResult], now: float) -> None:
        """Take over the good results of one tick, all at once, so that no export sees half of a snapshot."""
        fresh = {result.query.name: (result, now) for result in results if result.outcome == "ok"}
        with self._lock:
            self._good = {**self._good, **fresh}

    def shown(self, now: float) -> Iterator[PollResult]:
        """The good results that are young enough to be told, in the order of the queries."""
        good = self._good
        for query in self._queries:
            kept = good.get(query.name)
            if kept is not None and now - kept[1] <= query.max_age:
                yield kept[0]

    def freshness(self, now: float) -> Iterator[Freshness]:
        """Every query's freshness, those that never succeeded included."""
        good = self._good
        for query in self._queries:
            kept = good.get(query.name)
            if kept is None:
                yield Freshness(query, None, None, stale=True, series=0)
                continue
            result, at = kept
            stale = now - at > query.max_age
            yield Freshness(
                query,
                result.at,
                now - at,
                stale,
                0 if stale else len(result.samples),
                None if stale else result.estimated is not None,
            )

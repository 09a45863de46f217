"""Status of every query at one moment, for `poller watch`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poller.model.redaction import redact_beginning
from poller.model.result import Freshness, GoodResult, PollResult
from poller.model.text import kind_of
from poller.polling.report import attributes_text

MOST_READINGS = 20
"""Maximum number of listed series of one query."""
MOST_READINGS_OF_ALL = 2000
_LONGEST_DETAIL = 300
"""Maximum characters, also of the attributes of one series."""


class Reading(NamedTuple):
    """The newest value of one series."""

    metric: str
    unit: str
    attributes: str
    """As text: `state=queued tenant=a`."""
    value: float


class QueryStatus(NamedTuple):
    """Status of one query."""

    query: str
    state: str
    """`ok`, `failed(timeout)` and similar; see `poller.model.result.State`."""
    detail: str
    """The server's message, or why the query was not sent; empty without a problem."""
    last_success: float | None
    """Seconds since 1970, UTC."""
    next_run: float | None
    """Seconds since 1970, UTC; None if no run is planned."""
    stale: bool
    """Whether the values are not exported because of their age."""
    series: int
    """Number of exported series."""
    readings: tuple[Reading, ...]
    """The first of these series."""

    @property
    def state_name(self) -> str:
        """The state without its reason."""
        return self.state.partition("(")[0]


def query_statuses(
    freshness: Iterable[Freshness],
    good: Iterable[GoodResult],
    last: Mapping[str, PollResult],
    next_runs: Mapping[str, float],
) -> Iterator[QueryStatus]:
    """Yield all queries, in the order of `freshness`; `last` and `next_runs` are by query name."""
    results = {item.result.query.name: item.result for item in good}
    room = MOST_READINGS_OF_ALL
    for item in freshness:
        name = item.query.name
        readings = _readings(results[name], min(room, MOST_READINGS)) if name in results else ()
        room -= len(readings)
        yield QueryStatus(
            query=name,
            state=str(item.state),
            detail=_detail(last.get(name)),
            last_success=item.last_success,
            next_run=next_runs.get(name),
            stale=item.stale,
            series=item.series,
            readings=readings,
        )


class QueryStatuses:
    """The status of all queries, rebuilt only if something has changed since the last call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, PollResult] = {}
        self._last_reported: dict[str, PollResult] | None = None
        self._statuses: Sequence[QueryStatus] = ()
        self._inputs: object = None

    def observe(self, results: Iterable[PollResult]) -> None:
        """Store the results of one tick."""
        with self._lock:
            self._last.update((result.query.name, result) for result in results)
            self._last_reported = None

    def reset(self, names: Collection[str]) -> None:
        """Forget the results of these queries, because they were removed or changed."""
        with self._lock:
            self._last = {name: result for name, result in self._last.items() if name not in names}
            self._last_reported = None

    def read(
        self, freshness: Iterable[Freshness], good: Iterable[GoodResult], next_runs: Mapping[str, float]
    ) -> Sequence[QueryStatus]:
        """Return the result of `query_statuses`, without storing it."""
        with self._lock:
            last = self._last.copy()
        return tuple(query_statuses(freshness, good, last, next_runs))

    def current(
        self,
        freshness: Iterable[Freshness],
        good: Iterable[GoodResult],
        next_runs: Mapping[str, float],
    ) -> Sequence[QueryStatus]:
        """Return the result of `query_statuses`; the same object as before if nothing has changed."""
        with self._lock:
            unchanged = self._last_reported is not None
            # The copy is made here, because the work of a tick must not grow with the number of queries.
            last = self._last_reported = self._last_reported or self._last.copy()
        freshness = list(freshness)
        # `stale` and `state` are included because they change with time alone.
        inputs = [(item.query, item.last_success, item.stale, item.state) for item in freshness]
        if not unchanged or (inputs, next_runs) != self._inputs:
            self._inputs = inputs, next_runs
            self._statuses = tuple(query_statuses(freshness, good, last, next_runs))
        return self._statuses


def to_json(statuses: Iterable[QueryStatus]) -> list[dict[str, Any]]:
    """Return the queries as plain objects for JSON."""
    return [
        {**item._asdict(), "readings": [reading._asdict() for reading in item.readings]} for item in statuses
    ]


def from_json(statuses: object) -> list[QueryStatus]:
    """Read the output of `to_json`; raises ValueError for anything else."""
    try:
        result = [
            QueryStatus(**{**item, "readings": tuple(Reading(**reading) for reading in item["readings"])})
            for item in statuses  # type: ignore[attr-defined] # any object is tried
        ]
    except (TypeError, KeyError) as error:
        raise ValueError(f"is not a list of query states: {error}") from None
    for item in result:
        _check(item)
        for reading in item.readings:
            _check(reading)
    return result


def _check(part: QueryStatus | Reading) -> None:
    """Raise ValueError for a value of the wrong type, because another user may have written it."""
    for name, value in part._asdict().items():
        if name in ("query", "state", "detail", "metric", "unit", "attributes"):
            good = isinstance(value, str)
        elif name in ("last_success", "next_run"):
            good = value is None or is_number(value)
        else:
            good = name == "readings" or is_number(value)
        if not good:
            raise ValueError(f"is not a list of query states: {name} is {kind_of(value)}")


def is_number(value: object) -> bool:
    """Return whether a value from JSON is a number; NaN and integers beyond the range of a float are not."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _readings(result: PollResult, most: int) -> tuple[Reading, ...]:
    units = {metric.name: metric.unit for metric in result.query.metrics}
    return tuple(
        Reading(
            sample.metric,
            units[sample.metric],
            attributes_text(sample.attributes)[:_LONGEST_DETAIL],
            sample.value,
        )
        for sample in result.samples[:most]
    )


def _detail(result: PollResult | None) -> str:
    if result is None:
        return ""
    if result.error is not None:
        text = " ".join(part for part in (result.error.sqlstate, result.error.message) if part)
        text += f" ({result.error.hint})" if result.error.hint else ""
    else:
        text = result.skipped.detail if result.skipped is not None else result.advice or ""
    return " ".join(redact_beginning(text).split())[:_LONGEST_DETAIL] if text else ""

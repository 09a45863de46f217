"""Word how every query stands as OTLP gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from poller.datapoints import DataPoints, write_value
from poller.selfmetrics import QUERY, STATE
from poller.state import OK, STALE, State

if TYPE_CHECKING:
    from poller.store import Freshness

Read = Callable[["Freshness"], float | None]
_Series = tuple[str, State]
"""A query and one of the states that it was in."""

_GAUGES: tuple[tuple[str, str, str, Read], ...] = (
    (
        "last_success",
        "s",
        "Time of the last successful poll, in seconds since 1970.",
        attrgetter("last_success"),
    ),
    ("age", "s", "Time since the last successful poll.", attrgetter("age")),
    (
        "stale",
        "{query}",
        "1 while the query's values are withheld: older than max_age, or never there; else 0.",
        attrgetter("stale"),
    ),
    ("interval", "s", "Time between two polls, as declared.", attrgetter("query.interval")),
    (
        "estimated",
        "{query}",
        "1 while the values shown are the estimate's, 0 while they are exact.",
        attrgetter("estimated"),
    ),
    ("series", "{series}", "Series that the query shows now.", attrgetter("series")),
)
_STATE = ("state", "{query}", "1 for the state that the query is in, 0 for every other that it was in.")


class Standing:
    """The gauges `poller.query.*`, told apart by `poller.query.name`.

    They are worded here and not by the SDK for the reasons that `points.Points` gives.
    """

    def __init__(self) -> None:
        self._gauges = [
            (read, DataPoints(_metric(name, unit, description), _of_query))
            for name, unit, description, read in _GAUGES
        ]
        self._state = DataPoints(_metric(*_STATE), _of_state)
        self._states: dict[str, dict[State, _Series]] = {}

    def gauges(self, queries: Iterable[Freshness], at: int) -> list[Metric]:
        """One gauge for each thing that is told, its points stamped `at` (nanoseconds since 1970).

        What is returned changes at the next call.
        """
        queries = tuple(queries)
        for read, points in self._gauges:
            told = [(stands.query.name, value) for stands in queries if (value := read(stands)) is not None]
            for point, (_, value) in zip(points.of([name for name, _ in told]), told, strict=True):
                point.time_unix_nano = at
                write_value(point, value)
        self._tell_states(queries, at)
        told_of = [points.metric for _, points in self._gauges]
        return [metric for metric in (*told_of, self._state.metric) if metric.gauge.data_points]

    def _tell_states(self, queries: Iterable[Freshness], at: int) -> None:
        series: list[_Series] = []
        values: list[bool] = []
        before, self._states = self._states, {}
        for stands in queries:
            query = stands.query.name
            # A state that was left must be told as left: a backend shows a series for minutes after its end.
            seen = self._states[query] = before.get(query) or {state: (query, state) for state in (OK, STALE)}
            if stands.state not in seen:
                seen[stands.state] = query, stands.state
            for state, one in seen.items():
                series.append(one)
                values.append(state == stands.state)
        for point, value in zip(self._state.of(series), values, strict=True):
            point.time_unix_nano = at
            point.as_int = int(value)


def _metric(name: str, unit: str, description: str) -> Metric:
    return Metric(name=f"poller.query.{name}", description=description, unit=unit)


def _of_query(query: str) -> Mapping[str, str]:
    return {QUERY: query}


def _of_state(series: _Series) -> Mapping[str, str]:
    query, state = series
    attributes = {QUERY: query, STATE: state.word}
    if state.reason is not None:
        attributes["error.type" if state.word == "failed" else "poller.reason"] = state.reason
    return attributes

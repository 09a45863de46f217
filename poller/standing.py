"""Word how every query stands as OTLP gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint

from poller.instruments import QUERY, STATE
from poller.state import OK, STALE, State

if TYPE_CHECKING:
    from poller.store import Freshness

Read = Callable[["Freshness"], float | None]

_GAUGES: tuple[tuple[str, str, str, Read], ...] = (
    (
        "last_success",
        "s",
        "Time of the last successful poll, in seconds since 1970.",
        lambda stands: stands.last_success,
    ),
    ("age", "s", "Time since the last successful poll.", lambda stands: stands.age),
    (
        "stale",
        "{query}",
        "1 while the query's values are withheld: older than max_age, or never there; else 0.",
        lambda stands: int(stands.stale),
    ),
    ("interval", "s", "Time between two polls, as declared.", lambda stands: stands.query.interval),
    (
        "estimated",
        "{query}",
        "1 while the values shown are the estimate's, 0 while they are exact.",
        lambda stands: None if stands.estimated is None else int(stands.estimated),
    ),
    ("series", "{series}", "Series that the query shows now.", lambda stands: stands.series),
)
_STATE = ("state", "{query}", "1 for the state that the query is in, 0 for every other that it was in.")


class Standing:
    """The gauges `poller.query.*`, told apart by `poller.query.name`.

    They are worded here and not by the SDK for the reason that `points.metrics` gives; and of eight points of
    each query only time and value are written anew.
    """

    def __init__(self) -> None:
        self._points: dict[str, NumberDataPoint] = {}
        self._states: dict[str, dict[State, NumberDataPoint]] = {}

    def gauges(self, queries: Iterable[Freshness], at: int) -> list[Metric]:
        """One gauge for each thing that is told, its points stamped `at` (nanoseconds since 1970)."""
        queries = tuple(queries)
        self._forget({stands.query.name for stands in queries})
        told = [self._gauge(queries, at, *gauge) for gauge in _GAUGES]
        return [metric for metric in (*told, self._state(queries, at)) if metric.gauge.data_points]

    def _gauge(
        self, queries: Iterable[Freshness], at: int, name: str, unit: str, description: str, read: Read
    ) -> Metric:
        metric = _metric(name, unit, description)
        append = metric.gauge.data_points.append
        for stands in queries:
            value = read(stands)
            if value is None:
                continue
            query = stands.query.name
            point = self._points.get(query)
            if point is None:
                point = self._points[query] = _point({QUERY: query})
            point.time_unix_nano = at
            if isinstance(value, int):
                point.as_int = value
            else:
                point.as_double = value
            append(point)  # which makes a copy
        return metric

    def _state(self, queries: Iterable[Freshness], at: int) -> Metric:
        metric = _metric(*_STATE)
        append = metric.gauge.data_points.append
        for stands in queries:
            query = stands.query.name
            # A state that was left must be told as left: a backend shows a series for minutes after its end.
            seen = self._states.get(query)
            if seen is None:
                seen = self._states[query] = {state: _of_state(query, state) for state in (OK, STALE)}
            if stands.state not in seen:
                seen[stands.state] = _of_state(query, stands.state)
            for state, point in seen.items():
                point.time_unix_nano = at
                point.as_int = int(state == stands.state)
                append(point)
        return metric

    def _forget(self, stay: set[str]) -> None:
        for known in (self._points, self._states):
            for name in known.keys() - stay:
                del known[name]


def _metric(name: str, unit: str, description: str) -> Metric:
    return Metric(name=f"poller.query.{name}", description=description, unit=unit)


def _point(attributes: dict[str, str]) -> NumberDataPoint:
    pairs = (KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in attributes.items())
    return NumberDataPoint(attributes=pairs)


def _of_state(query: str, state: State) -> NumberDataPoint:
    attributes = {QUERY: query, STATE: state.word}
    if state.reason is not None:
        attributes["error.type" if state.word == "failed" else "poller.reason"] = state.reason
    return _point(attributes)

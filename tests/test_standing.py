"""How every query stands, as gauges: exact names, units and values, and nothing of what is gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from poller.errors import PollError
from poller.result import Sample, Skip
from poller.standing import Standing
from poller.store import SnapshotStore
from tests.bed.definitions import a_query, a_result

A = a_query("a", interval=60, max_age=100, timeout=1)
B = a_query("b", interval=300)

Series = dict[frozenset[tuple[str, Any]], Any]


class Told:
    """A store and its standing, read at a time that the test chooses."""

    def __init__(self) -> None:
        self.store = SnapshotStore([A, B])
        self.standing = Standing()
        self.now = 0.0

    def read(self) -> dict[str, Metric]:
        return {
            metric.name: metric for metric in self.standing.gauges(self.store.freshness(self.now), at=1_000)
        }

    def values(self, name: str) -> Series:
        told = self.read()
        return series(told[name].gauge.data_points) if name in told else {}


def series(points: Iterable[Any]) -> Series:
    return {
        frozenset((pair.key, pair.value.string_value) for pair in point.attributes): getattr(
            point, point.WhichOneof("value")
        )
        for point in points
    }


def of(query: str) -> frozenset[tuple[str, str]]:
    return frozenset({("poller.query.name", query)})


def test_the_names_units_and_times_of_what_is_told() -> None:
    told = Told()
    told.store.put([a_result(A)], 0)
    read = told.read().values()
    assert {(metric.name, metric.unit, metric.WhichOneof("data")) for metric in read} == {
        ("poller.query.last_success", "s", "gauge"),
        ("poller.query.age", "s", "gauge"),
        ("poller.query.stale", "{query}", "gauge"),
        ("poller.query.interval", "s", "gauge"),
        ("poller.query.series", "{series}", "gauge"),
        ("poller.query.estimated", "{query}", "gauge"),
        ("poller.query.state", "{query}", "gauge"),
    }
    assert all(metric.description.endswith(".") for metric in read)
    assert {point.time_unix_nano for metric in read for point in metric.gauge.data_points} == {1_000}


def test_nothing_is_told_where_nothing_is_known() -> None:
    assert "poller.query.age" not in Told().read(), "a gauge without a point is no gauge"
    assert Standing().gauges([], at=1) == []


def test_whether_values_are_estimated_is_told_as_long_as_they_are_shown() -> None:
    told = Told()
    assert told.values("poller.query.estimated") == {}
    told.store.put([a_result(A, estimated="cost"), a_result(B)], 0)
    assert told.values("poller.query.estimated") == {of("a"): 1, of("b"): 0}
    told.now = 100.1
    assert told.values("poller.query.estimated") == {of("b"): 0}
    told.store.put([a_result(A)], 101)
    told.now = 101
    assert told.values("poller.query.estimated") == {of("a"): 0, of("b"): 0}


def test_freshness_is_told_for_each_query_before_and_after_its_success() -> None:
    told = Told()
    told.store.put([a_result(A, Sample("users_total", 1, {}), at=1234.5)], 10)
    told.now = 40.0
    assert told.values("poller.query.last_success") == {of("a"): 1234.5}
    assert told.values("poller.query.age") == {of("a"): 30.0}
    assert told.values("poller.query.stale") == {of("a"): 0, of("b"): 1}
    assert told.values("poller.query.interval") == {of("a"): 60.0, of("b"): 300.0}
    assert told.values("poller.query.series") == {of("a"): 1, of("b"): 0}
    told.now = 110.5
    assert told.values("poller.query.age") == {of("a"): 100.5}
    assert told.values("poller.query.stale") == {of("a"): 1, of("b"): 1}
    assert told.values("poller.query.series") == {of("a"): 0, of("b"): 0}


def test_a_query_is_in_one_state_and_the_states_it_left_are_told_as_left() -> None:
    told = Told()

    def states(query: str) -> dict[str, int]:
        found = {}
        for attributes, value in told.values("poller.query.state").items():
            told_of = dict(attributes)
            if told_of.pop("poller.query.name") == query:
                found[" ".join(told_of[name] for name in sorted(told_of, reverse=True))] = value
        return found

    assert states("a") == {"ok": 0, "stale": 1}, "nothing is known of a query that was never polled"
    told.store.put([a_result(A)], 0)
    assert states("a") == {"ok": 1, "stale": 0}
    told.store.put([a_result(A, outcome="failed", error=PollError("timeout", "x"))], 10)
    assert states("a") == {"ok": 0, "stale": 0, "failed timeout": 1}
    told.store.put([a_result(A, outcome="skipped", skipped=Skip("lag", "x"))], 20)
    assert states("a") == {"ok": 0, "stale": 0, "failed timeout": 0, "skipped lag": 1}
    told.store.put([a_result(A, estimated="cost")], 30)
    assert states("a")["estimated cost"] == 1
    told.now = 130.1
    assert {state for state, value in states("a").items() if value} == {"stale"}
    assert states("b") == {"ok": 0, "stale": 1}


def test_a_query_that_is_gone_is_told_no_more_and_begins_anew_when_it_comes_back() -> None:
    told = Told()
    told.store.put([a_result(A, outcome="failed", error=PollError("timeout", "x")), a_result(B)], 0)
    assert len(told.values("poller.query.state")) == 5
    told.store.swap([B], {"a"})
    assert told.values("poller.query.stale") == {of("b"): 0}
    told.store.swap([A, B], {"a"})
    told.now = 1.0
    assert len(told.values("poller.query.state")) == 4
    assert told.values("poller.query.stale") == {of("a"): 1, of("b"): 0}

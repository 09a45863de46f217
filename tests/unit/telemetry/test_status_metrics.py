"""The gauges of a target: exact names, units and values, without removed queries and old information."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint

from poller.model.errors import PollError
from poller.model.result import PollResult, Sample, Skip
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.store import ResultStore
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.status_metrics import QueryMetrics, ReplicaMetrics
from tests.bed.definitions import a_query, a_result

A = a_query("a", interval=60, max_age=100, timeout=1)
B = a_query("b", interval=300)

Series = dict[frozenset[tuple[str, Any]], Any]


class QueryBed:
    """A store and the metrics of its queries, collected at a time that the test chooses."""

    def __init__(self) -> None:
        self.store = ResultStore([A, B])
        self.now = 0.0
        self._metrics = QueryMetrics()
        self._instruments = CatalogInstruments("1.2.3")

    def collect(self) -> dict[str, Metric]:
        frame = Frame(statuses=tuple(self.store.freshness(self.now)), more=[self._metrics])
        return {metric.name: metric for metric in self._instruments.collect(frame)}

    def values(self, name: str) -> Series:
        metrics = self.collect()
        points = metrics[name].data.data_points if name in metrics else ()
        return {frozenset((point.attributes or {}).items()): point.value for point in points}  # type: ignore[union-attr]

    def states(self, query: str) -> dict[str, int]:
        states = {}
        for attributes, value in self.values("poller.query.state").items():
            of_query = dict(attributes)
            if of_query.pop("poller.query.name") == query:
                states[" ".join(of_query[name] for name in sorted(of_query, reverse=True))] = value
        return states


def of(query: str) -> frozenset[tuple[str, str]]:
    return frozenset({("poller.query.name", query)})


def failed(at: float = 1000.0) -> PollResult:
    return a_result(A, outcome="failed", error=PollError("timeout", "x"), at=at)


def test_the_gauges_have_exact_names_and_units() -> None:
    exporting = QueryBed()
    exporting.store.put([a_result(A)], 0)
    metrics = exporting.collect().values()
    assert {(metric.name, metric.unit, type(metric.data)) for metric in metrics} == {
        ("poller.query.last_success", "s", Gauge),
        ("poller.query.duration", "s", Gauge),
        ("poller.query.series", "{series}", Gauge),
        ("poller.query.state", "{query}", Gauge),
    }
    assert all((metric.description or "").endswith(".") for metric in metrics)


def test_a_healthy_query_has_three_gauges() -> None:
    """With its counter of polls these are its four data points per export."""
    exporting = QueryBed()
    exporting.store.put([a_result(A, Sample("a", 1, {})), a_result(B)], 0)
    exporting.collect()
    metrics = exporting.collect().values()
    assert sum(len(metric.data.data_points) for metric in metrics) == 2 * 3


def test_last_success_duration_and_series_follow_the_polls_of_a_query() -> None:
    exporting = QueryBed()
    exporting.store.put([a_result(A, Sample("a", 1, {}), at=1234.5, duration=0.25)], 10)
    assert exporting.values("poller.query.last_success") == {of("a"): 1234.5}
    assert exporting.values("poller.query.duration") == {of("a"): 0.25}
    assert exporting.values("poller.query.series") == {of("a"): 1, of("b"): 0}
    exporting.store.put([failed()._replace(duration=2.0)], 20)
    exporting.now = 20
    assert exporting.values("poller.query.last_success") == {of("a"): 1234.5}
    assert exporting.values("poller.query.duration") == {of("a"): 2.0}
    exporting.now = 110.5
    assert exporting.values("poller.query.series") == {of("a"): 0, of("b"): 0}


def test_a_state_other_than_ok_is_1_and_then_0_once() -> None:
    exporting = QueryBed()
    assert exporting.states("a") == {"stale": 1}, "a query that was never polled"
    exporting.store.put([a_result(A), a_result(B)], 0)
    assert exporting.states("a") == {"stale": 0}
    assert exporting.states("a") == {}
    exporting.store.put([failed()], 10)
    assert exporting.states("a") == {"failed timeout": 1}
    exporting.store.put([a_result(A, outcome="skipped", skipped=Skip("lag", "x"))], 20)
    assert exporting.states("a") == {"failed timeout": 0, "skipped lag": 1}
    exporting.store.put([a_result(A, estimated="cost")], 30)
    assert exporting.states("a") == {"skipped lag": 0, "estimated cost": 1}
    assert exporting.states("a") == {"estimated cost": 1}


def test_a_query_whose_values_are_withheld_is_stale_next_to_the_state_of_its_last_poll() -> None:
    exporting = QueryBed()
    exporting.store.put([a_result(A)], 0)
    exporting.store.put([failed()], 90)
    exporting.now = 101
    assert exporting.states("a") == {"failed timeout": 1, "stale": 1}


def test_estimated_values_stay_estimated_while_later_polls_fail() -> None:
    exporting = QueryBed()
    exporting.store.put([a_result(A, estimated="cost")], 0)
    exporting.store.put([failed()], 60)
    exporting.now = 61
    assert exporting.states("a") == {"estimated cost": 1, "failed timeout": 1}
    exporting.now = 101
    assert exporting.states("a") == {"estimated cost": 0, "failed timeout": 1, "stale": 1}


def test_a_query_that_is_removed_has_no_data_point() -> None:
    exporting = QueryBed()
    exporting.store.put([failed(), a_result(B)], 0)
    assert exporting.states("a") == {"failed timeout": 1, "stale": 1}
    exporting.store.swap([B], {"a"})
    assert exporting.states("a") == {}
    assert exporting.values("poller.query.last_success") == {of("b"): 1000.0}


class ServerBed:
    """The gauges of a tracker, collected at a time that the test chooses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tracker = ServerTracker(30.0)
        self._metrics = ReplicaMetrics(self.tracker, lambda: self.now)
        self._instruments = CatalogInstruments("1.2.3")

    def read(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in self._instruments.collect(Frame(more=[self._metrics]))}

    def values(self, name: str) -> Series:
        metric = self.read().get(name)
        return {
            frozenset((point.attributes or {}).items()): point.value
            for point in (metric.data.data_points if metric else ())
            if isinstance(point, NumberDataPoint)
        }


@pytest.fixture
def server() -> ServerBed:
    return ServerBed()


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def test_the_servers_gauges_are_those_of_the_last_connection_and_age_with_it(server: ServerBed) -> None:
    assert server.read() == {}
    info = ServerInfo("10.0.0.1", 5432, standby=True, timeline=3, lag=2.5, data_age=3.0, why="x", at=100.0)
    server.tracker.record(info)
    server.now = 110.0
    place = key(**{"server.address": "10.0.0.1", "server.port": 5432})
    assert {name: server.values(name) for name in server.read()} == {
        "poller.replica.lag": {place: 2.5},
        "poller.replica.data_age": {place: 13.0},
        "poller.replica.standby": {place: 1},
        "poller.replica.timeline": {place: 3},
    }
    server.tracker.record(
        replace(info, standby=False, timeline=None, lag=None, data_age=None, port=5433, at=110.0)
    )
    place = key(**{"server.address": "10.0.0.1", "server.port": 5433})
    assert {name: server.values(name) for name in server.read()} == {"poller.replica.standby": {place: 0}}
    server.now = 140.1
    assert server.read() == {}, "an old lag must not be exported"

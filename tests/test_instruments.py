"""What a meter shows of the poller itself: exact names, units, descriptions and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, NumberDataPoint

from poller.errors import PollError
from poller.instruments import DURATION_BOUNDARIES, SelfMetrics, register_replica_gauges
from poller.result import Sample, Skip
from poller.sqlstate import server_error
from poller.store import SnapshotStore
from poller.whereabouts import Sighting, Whereabouts
from tests.bed.definitions import a_metric, a_query, a_result

USERS = a_metric("users_total", unit="{user}", description="Total registered users.")
BYTES = a_metric("stored.bytes", unit="By", description="Stored.")
A = a_query("a", metrics=(USERS,), interval=60, max_age=100, timeout=1)
B = a_query("b", metrics=(USERS, BYTES), interval=300)

Series = dict[frozenset[tuple[str, Any]], Any]


class Bed:
    """A real meter, read into memory, over a store whose clock is turned by hand."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.now = 0.0
        self.store = SnapshotStore([A, B])
        self.meter = self.provider.get_meter("poller")

    def clock(self) -> float:
        return self.now

    def read(self) -> dict[str, Metric]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> Series:
        metric = self.read().get(name)
        return {
            frozenset((point.attributes or {}).items()): point.value
            for point in (metric.data.data_points if metric else ())
            if isinstance(point, NumberDataPoint)
        }


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    yield bed
    bed.provider.shutdown()


@pytest.fixture
def own(bed: Bed) -> SelfMetrics:
    return SelfMetrics(bed.meter, bed.store, bed.clock)


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def of(query: str, **more: object) -> frozenset[tuple[str, object]]:
    return frozenset({"poller.query.name": query, **more}.items())


def test_the_names_units_and_kinds_of_the_pollers_own_metrics(bed: Bed, own: SelfMetrics) -> None:
    bed.store.put([a_result(A)], 0)
    own.record(a_result(A, quarantined={"null": 1}))
    own.overrun("default/1m")
    assert {(m.name, m.unit, type(m.data).__name__) for m in bed.read().values()} == {
        ("poller.poll.duration", "s", "Histogram"),
        ("poller.polls", "{poll}", "Sum"),
        ("poller.query.quarantined", "{data_point}", "Sum"),
        ("poller.tick.overruns", "{tick}", "Sum"),
        ("poller.query.last_success", "s", "Gauge"),
        ("poller.query.age", "s", "Gauge"),
        ("poller.query.stale", "{query}", "Gauge"),
        ("poller.query.interval", "s", "Gauge"),
        ("poller.query.series", "{series}", "Gauge"),
        ("poller.query.estimated", "{query}", "Gauge"),
        ("poller.query.state", "{query}", "Gauge"),
    }


def test_polls_are_counted_by_outcome_kind_and_sqlstate(bed: Bed, own: SelfMetrics) -> None:
    refused = PollError("rejected", "no", sqlstate="42501")
    lost = PollError("unavailable", "gone")
    for result in (
        a_result(A), a_result(A), a_result(B),
        a_result(A, outcome="failed", error=refused), a_result(A, outcome="failed", error=lost),
        a_result(B, outcome="skipped", skipped=Skip("lag", "x")),
    ):  # fmt: skip
        own.record(result)
    assert bed.values("poller.polls") == {
        of("a", **{"poller.state": "ok"}): 2,
        of("b", **{"poller.state": "ok"}): 1,
        of(
            "a", **{"poller.state": "failed", "error.type": "rejected", "db.response.status_code": "42501"}
        ): 1,
        of("a", **{"poller.state": "failed", "error.type": "unavailable"}): 1,
        of("b", **{"poller.state": "skipped", "poller.reason": "lag"}): 1,
    }


def test_a_conflict_is_counted_by_its_kind(bed: Bed, own: SelfMetrics) -> None:
    text = "canceling statement (User query might have needed to see row versions that must be removed.)"
    own.record(a_result(A, outcome="failed", error=server_error("40001", text)))
    (attributes,) = bed.values("poller.polls")
    assert dict(attributes)["poller.conflict"] == "snapshot"


@pytest.mark.usefixtures("own")
def test_whether_values_are_estimated_is_told_as_long_as_they_are_shown(bed: Bed) -> None:
    assert bed.values("poller.query.estimated") == {}, "own metrics tell nothing of what is not there"
    bed.store.put([a_result(A, estimated="cost"), a_result(B)], 0)
    assert bed.values("poller.query.estimated") == {of("a"): 1, of("b"): 0}
    bed.now = 100.1
    assert bed.values("poller.query.estimated") == {of("b"): 0}
    bed.store.put([a_result(A)], 101)
    bed.now = 101
    assert bed.values("poller.query.estimated") == {of("a"): 0, of("b"): 0}


def test_the_servers_gauges_are_those_of_the_last_sighting_and_age_with_it(bed: Bed) -> None:
    whereabouts = Whereabouts(30.0)
    register_replica_gauges(bed.meter, whereabouts, bed.clock)
    assert bed.read() == {}
    seen = Sighting("10.0.0.1", 5432, standby=True, timeline=3, lag=2.5, data_age=3.0, why="x", at=100.0)
    whereabouts.note(seen)
    bed.now = 110.0
    place = key(**{"server.address": "10.0.0.1", "server.port": 5432})
    assert {name: bed.values(name) for name in bed.read()} == {
        "poller.replica.lag": {place: 2.5},
        "poller.replica.data_age": {place: 13.0},
        "poller.replica.standby": {place: 1},
        "poller.replica.timeline": {place: 3},
    }
    whereabouts.note(
        replace(seen, standby=False, timeline=None, lag=None, data_age=None, port=5433, at=110.0)
    )
    place = key(**{"server.address": "10.0.0.1", "server.port": 5433})
    assert {name: bed.values(name) for name in bed.read()} == {"poller.replica.standby": {place: 0}}
    bed.now = 140.1
    assert bed.read() == {}, "a lag that nobody has looked at for long is none"


def test_durations_are_a_histogram_without_the_skipped(bed: Bed, own: SelfMetrics) -> None:
    own.record(a_result(A, duration=0.25))
    own.record(a_result(A, duration=70.0))
    own.record(a_result(A, outcome="skipped", skipped=Skip("lag", "x"), duration=0.0))
    own.record(a_result(A, outcome="failed", error=PollError("timeout", "x", sqlstate="57014"), duration=1.5))
    points: dict[frozenset[tuple[str, object]], HistogramDataPoint] = {
        frozenset((point.attributes or {}).items()): point
        for point in bed.read()["poller.poll.duration"].data.data_points
        if isinstance(point, HistogramDataPoint)
    }
    good = points[of("a", **{"poller.state": "ok"})]
    assert (good.count, good.sum, good.min, good.max) == (2, 70.25, 0.25, 70.0)
    assert tuple(good.explicit_bounds) == DURATION_BOUNDARIES
    assert points[of("a", **{"poller.state": "failed", "error.type": "timeout"})].sum == 1.5
    assert len(points) == 2


def test_data_points_left_out_are_counted_by_reason(bed: Bed, own: SelfMetrics) -> None:
    own.record(a_result(A, quarantined={"null": 2, "duplicate": 3}))
    own.record(a_result(A, quarantined={"null": 1}))
    assert bed.values("poller.query.quarantined") == {
        of("a", **{"poller.reason": "null"}): 3,
        of("a", **{"poller.reason": "duplicate"}): 3,
    }


def test_overruns_are_counted_by_tick(bed: Bed, own: SelfMetrics) -> None:
    own.overrun("default/1m")
    own.overrun("default/1m")
    assert bed.values("poller.tick.overruns") == {key(**{"poller.tick.name": "default/1m"}): 2}


@pytest.mark.usefixtures("own")
def test_freshness_is_told_for_each_query_before_and_after_its_success(bed: Bed) -> None:
    bed.store.put([a_result(A, Sample("users_total", 1, {}), at=1234.5)], 10)
    bed.now = 40.0
    assert bed.values("poller.query.last_success") == {of("a"): 1234.5}
    assert bed.values("poller.query.age") == {of("a"): 30.0}
    assert bed.values("poller.query.stale") == {of("a"): 0, of("b"): 1}
    assert bed.values("poller.query.interval") == {of("a"): 60.0, of("b"): 300.0}
    assert bed.values("poller.query.series") == {of("a"): 1, of("b"): 0}
    bed.now = 110.5
    assert bed.values("poller.query.age") == {of("a"): 100.5}
    assert bed.values("poller.query.stale") == {of("a"): 1, of("b"): 1}
    assert bed.values("poller.query.series") == {of("a"): 0, of("b"): 0}


@pytest.mark.usefixtures("own")
def test_a_query_is_in_one_state_and_the_states_it_left_are_told_as_left(bed: Bed) -> None:
    def states(query: str) -> dict[str, int]:
        told = {}
        for attributes, value in bed.values("poller.query.state").items():
            told_of = dict(attributes)
            if told_of.pop("poller.query.name") == query:
                told[" ".join(told_of[name] for name in sorted(told_of, reverse=True))] = value
        return told

    assert states("a") == {"ok": 0, "stale": 1}, "nothing is known of a query that was never polled"
    bed.store.put([a_result(A)], 0)
    assert states("a") == {"ok": 1, "stale": 0}
    bed.store.put([a_result(A, outcome="failed", error=PollError("timeout", "x"))], 10)
    assert states("a") == {"ok": 0, "stale": 0, "failed timeout": 1}
    bed.store.put([a_result(A, outcome="skipped", skipped=Skip("lag", "x"))], 20)
    assert states("a") == {"ok": 0, "stale": 0, "failed timeout": 0, "skipped lag": 1}
    bed.store.put([a_result(A, estimated="cost")], 30)
    assert states("a")["estimated cost"] == 1
    bed.now = 130.1
    assert {state for state, value in states("a").items() if value} == {"stale"}
    assert states("b") == {"ok": 0, "stale": 1}

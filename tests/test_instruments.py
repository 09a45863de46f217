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
from poller.result import Skip
from poller.sqlstate import server_error
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
    return SelfMetrics(bed.meter)


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def of(query: str, **more: object) -> frozenset[tuple[str, object]]:
    return frozenset({"poller.query.name": query, **more}.items())


def test_the_names_units_and_kinds_of_the_pollers_own_metrics(bed: Bed, own: SelfMetrics) -> None:
    own.record(a_result(A, quarantined={"null": 1}))
    own.overrun("default/1m")
    assert {(m.name, m.unit, type(m.data).__name__) for m in bed.read().values()} == {
        ("poller.poll.duration", "s", "Histogram"),
        ("poller.polls", "{poll}", "Sum"),
        ("poller.query.quarantined", "{data_point}", "Sum"),
        ("poller.tick.overruns", "{tick}", "Sum"),
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

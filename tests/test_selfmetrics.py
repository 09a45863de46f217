"""What the poller counts of itself: exact names, units, descriptions and values."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from poller.errors import PollError
from poller.result import Skip
from poller.selfmetrics import DURATION_BOUNDARIES, SelfMetrics
from poller.sqlstate import server_error
from tests.bed.definitions import a_metric, a_query, a_result

USERS = a_metric("users_total", unit="{user}", description="Total registered users.")
BYTES = a_metric("stored.bytes", unit="By", description="Stored.")
A = a_query("a", metrics=(USERS,), interval=60, max_age=100, timeout=1)
B = a_query("b", metrics=(USERS, BYTES), interval=300)

Series = dict[frozenset[tuple[str, Any]], Any]


def read(own: SelfMetrics) -> dict[str, Metric]:
    metrics = [Metric.FromString(told.body) for told in own.collect(1)]
    return {metric.name: metric for metric in metrics}


def by_attributes(points: Any) -> Series:
    return {
        frozenset((pair.key, pair.value.string_value) for pair in point.attributes): point for point in points
    }


def values(own: SelfMetrics, name: str) -> Series:
    return {key: point.as_int for key, point in by_attributes(read(own)[name].sum.data_points).items()}


def of(query: str, **more: object) -> frozenset[tuple[str, object]]:
    return frozenset({"poller.query.name": query, **more}.items())


def test_the_names_units_and_kinds_of_the_pollers_own_metrics() -> None:
    own = SelfMetrics()
    own.record(a_result(A, quarantined={"null": 1}))
    own.overrun("default/1m")
    assert {(m.name, m.unit, m.WhichOneof("data")) for m in read(own).values()} == {
        ("poller.poll.duration", "s", "histogram"),
        ("poller.polls", "{poll}", "sum"),
        ("poller.query.quarantined", "{data_point}", "sum"),
        ("poller.tick.overruns", "{tick}", "sum"),
    }


def test_polls_are_counted_by_outcome_kind_and_sqlstate() -> None:
    own = SelfMetrics()
    refused = PollError("rejected", "no", sqlstate="42501")
    lost = PollError("unavailable", "gone")
    for result in (
        a_result(A), a_result(A), a_result(B),
        a_result(A, outcome="failed", error=refused), a_result(A, outcome="failed", error=lost),
        a_result(B, outcome="skipped", skipped=Skip("lag", "x")),
    ):  # fmt: skip
        own.record(result)
    assert values(own, "poller.polls") == {
        of("a", **{"poller.state": "ok"}): 2,
        of("b", **{"poller.state": "ok"}): 1,
        of(
            "a", **{"poller.state": "failed", "error.type": "rejected", "db.response.status_code": "42501"}
        ): 1,
        of("a", **{"poller.state": "failed", "error.type": "unavailable"}): 1,
        of("b", **{"poller.state": "skipped", "poller.reason": "lag"}): 1,
    }


def test_a_conflict_is_counted_by_its_kind() -> None:
    own = SelfMetrics()
    text = "canceling statement (User query might have needed to see row versions that must be removed.)"
    own.record(a_result(A, outcome="failed", error=server_error("40001", text)))
    (attributes,) = values(own, "poller.polls")
    assert dict(attributes)["poller.conflict"] == "snapshot"


def test_durations_are_a_histogram_without_the_skipped() -> None:
    own = SelfMetrics()
    own.record(a_result(A, duration=0.25))
    own.record(a_result(A, duration=70.0))
    own.record(a_result(A, outcome="skipped", skipped=Skip("lag", "x"), duration=0.0))
    own.record(a_result(A, outcome="failed", error=PollError("timeout", "x", sqlstate="57014"), duration=1.5))
    points = by_attributes(read(own)["poller.poll.duration"].histogram.data_points)
    good = points[of("a", **{"poller.state": "ok"})]
    assert (good.count, good.sum, good.min, good.max) == (2, 70.25, 0.25, 70.0)
    assert tuple(good.explicit_bounds) == DURATION_BOUNDARIES
    assert points[of("a", **{"poller.state": "failed", "error.type": "timeout"})].sum == 1.5
    assert len(points) == 2


def test_data_points_left_out_are_counted_by_reason() -> None:
    own = SelfMetrics()
    own.record(a_result(A, quarantined={"null": 2, "duplicate": 3}))
    own.record(a_result(A, quarantined={"null": 1}))
    assert values(own, "poller.query.quarantined") == {
        of("a", **{"poller.reason": "null"}): 3,
        of("a", **{"poller.reason": "duplicate"}): 3,
    }


def test_overruns_are_counted_by_tick() -> None:
    own = SelfMetrics()
    own.overrun("default/1m")
    own.overrun("default/1m")
    assert values(own, "poller.tick.overruns") == {frozenset({("poller.tick.name", "default/1m")}): 2}

"""The poller's own metrics: exact names, units, descriptions and values."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, Metric, Sum
from opentelemetry.trace import SpanContext, TraceFlags

from poller.model.errors import PollError
from poller.model.result import Skip
from poller.otlp.metric_reader import OnDemandReader
from poller.postgres.sqlstate import server_error
from poller.telemetry.poll_metrics import DURATION_BOUNDARIES, PollMetrics
from tests.bed.definitions import a_metric, a_query, a_result

USERS = a_metric("users_total", unit="{user}", description="Total registered users.")
BYTES = a_metric("stored.bytes", unit="By", description="Stored.")
A = a_query("a", metrics=(USERS,), interval=60, max_age=100, timeout=1)
B = a_query("b", metrics=(USERS, BYTES), interval=300)

Series = dict[frozenset[tuple[str, Any]], Any]
SPAN = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class Own(PollMetrics):
    """The metrics and their exported values."""

    def __init__(self) -> None:
        self.reader = OnDemandReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        super().__init__(self.provider.get_meter("poller"))

    def read(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in self.reader.read()}

    def points(self, name: str) -> Series:
        return {
            frozenset((point.attributes or {}).items()): point for point in self.read()[name].data.data_points
        }

    def values(self, name: str) -> Series:
        return {attributes: point.value for attributes, point in self.points(name).items()}


def of(query: str, **more: object) -> frozenset[tuple[str, object]]:
    return frozenset({"poller.query.name": query, **more}.items())


def test_the_names_units_and_kinds_of_the_pollers_own_metrics() -> None:
    own = Own()
    own.record(a_result(A, rejected={"null": 1}))
    own.overrun("default/1m")
    own.plan_changed("a")
    assert {(m.name, m.unit, type(m.data)) for m in own.read().values()} == {
        ("poller.poll.duration", "s", Histogram),
        ("poller.polls", "{poll}", Sum),
        ("poller.query.quarantined", "{data_point}", Sum),
        ("poller.query.plan_changes", "{change}", Sum),
        ("poller.tick.overruns", "{tick}", Sum),
    }


def test_polls_are_counted_by_outcome_kind_and_sqlstate() -> None:
    own = Own()
    refused = PollError("rejected", "no", sqlstate="42501")
    lost = PollError("unavailable", "gone")
    for result in (
        a_result(A), a_result(A), a_result(B),
        a_result(A, outcome="failed", error=refused), a_result(A, outcome="failed", error=lost),
        a_result(B, outcome="skipped", skipped=Skip("lag", "x")),
    ):  # fmt: skip
        own.record(result)
    assert own.values("poller.polls") == {
        of("a", **{"poller.state": "ok"}): 2,
        of("b", **{"poller.state": "ok"}): 1,
        of(
            "a", **{"poller.state": "failed", "error.type": "rejected", "db.response.status_code": "42501"}
        ): 1,
        of("a", **{"poller.state": "failed", "error.type": "unavailable"}): 1,
        of("b", **{"poller.state": "skipped", "poller.reason": "lag"}): 1,
    }


def test_a_conflict_is_counted_by_its_kind() -> None:
    own = Own()
    text = "canceling statement (User query might have needed to see row versions that must be removed.)"
    own.record(a_result(A, outcome="failed", error=server_error("40001", text)))
    (attributes,) = own.values("poller.polls")
    assert dict(attributes)["poller.conflict"] == "snapshot"


def test_durations_are_a_histogram_for_each_tick_without_skipped_queries() -> None:
    own = Own()
    own.record(a_result(A, duration=0.25))
    own.record(a_result(A, duration=70.0))
    own.record(a_result(A, outcome="skipped", skipped=Skip("lag", "x"), duration=0.0))
    own.record(a_result(A, outcome="failed", error=PollError("timeout", "x", sqlstate="57014"), duration=1.5))
    points = own.points("poller.poll.duration")
    (duration,) = points.values()
    assert points.keys() == {frozenset({("poller.tick.name", "default/1m")})}
    assert (duration.count, duration.sum, duration.min, duration.max) == (3, 71.75, 0.25, 70.0)
    assert tuple(duration.explicit_bounds) == DURATION_BOUNDARIES


def test_a_poll_within_a_sampled_span_is_an_exemplar_once() -> None:
    own = Own()
    own.record(a_result(A, duration=0.25), SPAN)
    for name in ("poller.poll.duration", "poller.polls"):
        own_exemplars = [exemplar for point in own.points(name).values() for exemplar in point.exemplars]
        assert {(exemplar.trace_id, exemplar.span_id) for exemplar in own_exemplars} <= {(0xABC, 0xDEF)}
    own.record(a_result(A, duration=0.25), SPAN)
    metrics = own.read()
    assert all(point.exemplars for metric in metrics.values() for point in metric.data.data_points)
    assert not any(point.exemplars for metric in own.read().values() for point in metric.data.data_points)


def test_omitted_data_points_are_counted_by_reason() -> None:
    own = Own()
    own.record(a_result(A, rejected={"null": 2, "duplicate": 3}))
    own.record(a_result(A, rejected={"null": 1}))
    assert own.values("poller.query.quarantined") == {
        of("a", **{"poller.reason": "null"}): 3,
        of("a", **{"poller.reason": "duplicate"}): 3,
    }


def test_changed_plans_are_counted_by_query() -> None:
    own = Own()
    own.plan_changed("a")
    own.plan_changed("a")
    assert own.values("poller.query.plan_changes") == {of("a"): 2}


def test_overruns_are_counted_by_tick() -> None:
    own = Own()
    own.overrun("default/1m")
    own.overrun("default/1m")
    assert own.values("poller.tick.overruns") == {frozenset({("poller.tick.name", "default/1m")}): 2}

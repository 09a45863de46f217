"""The store as gauges: exact names, units, descriptions and values, and nothing of what is gone."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from poller.datapoints import DataPoints
from poller.metric import AttributeValue
from poller.points import Points
from poller.result import PollResult, Sample
from poller.store import SnapshotStore
from tests.bed.definitions import a_metric, a_query, a_result

USERS = a_metric("users_total", unit="{user}", description="Total registered users.")
BYTES = a_metric("stored.bytes", unit="By", description="Stored.")
A = a_query("a", metrics=(USERS,), interval=60, max_age=100, timeout=1)
B = a_query("b", metrics=(USERS, BYTES), interval=300)

Series = dict[frozenset[tuple[str, Any]], Any]


def stored(*results: PollResult) -> SnapshotStore:
    store = SnapshotStore([A, B])
    store.put(results, 0)
    return store


def values(told: list[Metric], name: str) -> Series:
    series: Series = {}
    for metric in told:
        for point in metric.gauge.data_points if metric.name == name else ():
            attributes = (
                (pair.key, getattr(pair.value, str(pair.value.WhichOneof("value"))))
                for pair in point.attributes
            )
            series[frozenset(attributes)] = getattr(point, str(point.WhichOneof("value")))
    return series


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def test_a_gauge_has_the_name_unit_and_description_of_its_definition() -> None:
    store = stored(a_result(B, Sample("users_total", 1, {}), Sample("stored.bytes", 2, {})))
    assert {
        (m.name, m.unit, m.description, m.WhichOneof("data")) for m in Points().metrics(store.shown(0))
    } == {
        ("users_total", "{user}", "Total registered users.", "gauge"),
        ("stored.bytes", "By", "Stored.", "gauge"),
    }


def test_values_are_told_exactly_as_integers_or_floats() -> None:
    samples = (
        Sample("users_total", 2**53 + 1, {"kind": "int"}),
        Sample("users_total", 0.1, {"kind": "float"}),
    )
    told = values(Points().metrics(stored(a_result(A, *samples)).shown(0)), "users_total")
    assert told == {key(kind="int"): 2**53 + 1, key(kind="float"): 0.1}
    assert type(told[key(kind="int")]) is int


def test_attributes_keep_their_types() -> None:
    attributes: dict[str, AttributeValue] = {"text": "ä", "truth": True, "whole": 3, "part": 0.5}
    ((told, _),) = values(
        Points().metrics(stored(a_result(A, Sample("users_total", 1, attributes))).shown(0)), "users_total"
    ).items()
    assert {name: (type(value), value) for name, value in told} == {
        name: (type(value), value) for name, value in attributes.items()
    }


def test_points_are_stamped_as_asked_or_with_the_time_of_their_snapshot() -> None:
    store = stored(a_result(A, Sample("users_total", 1, {}), at=1234.5))
    (at_export,), (at_poll,) = Points().metrics(store.shown(0), 99), Points().metrics(store.shown(0))
    assert at_export.gauge.data_points[0].time_unix_nano == 99
    assert at_poll.gauge.data_points[0].time_unix_nano == 1_234_500_000_000


def test_nothing_is_told_before_the_first_result() -> None:
    assert Points().metrics(SnapshotStore([A, B]).shown(0)) == []


def test_two_queries_feed_one_metric_and_a_stale_one_leaves_the_other() -> None:
    store = stored(
        a_result(A, Sample("users_total", 1, {"from": "a"})),
        a_result(B, Sample("users_total", 2, {"from": "b"})),
    )
    told = Points().metrics(store.shown(0))
    assert [metric.name for metric in told] == ["users_total"]
    assert values(told, "users_total") == {key(**{"from": "a"}): 1, key(**{"from": "b"}): 2}
    assert values(Points().metrics(store.shown(100.1)), "users_total") == {key(**{"from": "b"}): 2}
    assert Points().metrics(store.shown(10_000)) == []


def test_a_series_that_is_gone_from_the_result_is_gone_from_the_export() -> None:
    store = stored(a_result(A, Sample("users_total", 1, {"k": "x"}), Sample("users_total", 2, {"k": "y"})))
    assert values(Points().metrics(store.shown(0)), "users_total") == {key(k="x"): 1, key(k="y"): 2}
    store.put([a_result(A, Sample("users_total", 3, {"k": "y"}))], 1)
    assert values(Points().metrics(store.shown(1)), "users_total") == {key(k="y"): 3}


def test_what_is_shown_again_is_told_as_by_a_fresh_pair_of_eyes() -> None:
    """Data points are kept from one collection to the next: whatever changes, nothing of before may stay."""
    store, kept = SnapshotStore([A, B]), Points()
    shown = [
        [a_result(A, Sample("users_total", 1, {"k": "x"}), Sample("users_total", 2, {"k": "y"}))],
        [a_result(A, Sample("users_total", 1.5, {"k": "x"}), Sample("users_total", 3, {"k": "y"}))],
        [a_result(A, Sample("users_total", 1, {"k": "y"}), Sample("users_total", 2, {"k": "x"}))],
        [a_result(A, Sample("users_total", 1, {"k": "x", "more": True}))],
        [a_result(A), a_result(B, Sample("stored.bytes", 7, {}))],
        [
            a_result(A, Sample("users_total", 4, {"k": "x"})),
            a_result(B, Sample("users_total", 5, {"k": "z"})),
        ],
    ]
    for at, results in enumerate(shown, 1):
        store.put(results, 0)
        told = kept.metrics(store.shown(0), at)
        assert told == Points().metrics(store.shown(0), at)
        assert told == kept.metrics(store.shown(0), at), "and once more"


def test_a_metric_that_is_described_anew_is_told_anew() -> None:
    store, kept = stored(a_result(A, Sample("users_total", 1, {}))), Points()
    kept.metrics(store.shown(0))
    other = a_metric("users_total", unit="{member}", description="Members.")
    store.swap([a_query("a", metrics=(other,), interval=60, max_age=100, timeout=1)], set())
    (metric,) = kept.metrics(store.shown(0))
    assert (metric.unit, metric.description, len(metric.gauge.data_points)) == ("{member}", "Members.", 1)


def test_data_points_are_written_anew_only_where_the_series_are_others() -> None:
    kept: DataPoints[str] = DataPoints(Metric(name="m"), lambda series: {"k": series})
    before = kept.of(["a", "b"])
    assert all(one is other for one, other in zip(kept.of(["a", "b"]), before, strict=True))
    assert not {id(one) for one in kept.of(["b", "a"])} & {id(one) for one in before}
    assert [point.attributes[0].value.string_value for point in kept.metric.gauge.data_points] == ["b", "a"]
    assert kept.of([]) == []
    assert not kept.metric.gauge.data_points

"""The store as observable instruments: exact names, units and values, without removed series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    Counter,
    Histogram,
    MeterProvider,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Metric, Sum
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from poller.model.errors import ConfigError
from poller.model.query import AttributeValue, QueryDefinition
from poller.model.result import PollResult, Sample, UnbrokenSequence
from poller.model.series import starting_in_time, with_points
from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.preferences import read_preferences
from poller.polling.instruments import RENEWAL_FLOOR, CatalogInstruments, Frame
from poller.polling.store import ResultStore
from tests.bed.definitions import a_metric, a_query, a_result

USERS = a_metric("users_total", unit="{user}", description="Total registered users.")
BYTES = a_metric("stored.bytes", unit="By", description="Stored.")
A = a_query("a", metrics=(USERS,), interval=60, max_age=100, timeout=1)
B = a_query("b", metrics=(USERS, BYTES), interval=300)
SENT = a_query("sent", metrics=(a_metric("sent", type="counter"), a_metric("open", type="updowncounter")))

Series = dict[frozenset[tuple[str, Any]], Any]


class Exporting:
    """A store and its instruments, collected at a time that the test chooses."""

    def __init__(self, *queries: QueryDefinition, **options: Any) -> None:
        self.queries: Sequence[QueryDefinition] = queries or (A, B)
        self.store = ResultStore(self.queries)
        self.now = 0.0
        self.instruments = CatalogInstruments("1.2.3", **options)

    def frame(self) -> Frame:
        metrics = [metric for query in self.queries for metric in query.metrics]
        return Frame(metrics, tuple(self.store.current(self.now)))

    def put(self, *results: PollResult) -> list[Metric]:
        self.store.put(results, self.now)
        return self.collect()

    def collect(self) -> list[Metric]:
        return self.instruments.collect(self.frame())

    def values(self, name: str) -> Series:
        return values(self.collect(), name)


def values(metrics: list[Metric], name: str) -> Series:
    return {
        frozenset((point.attributes or {}).items()): point.value  # type: ignore[union-attr]
        for metric in metrics
        if metric.name == name
        for point in metric.data.data_points
    }


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def test_an_instrument_has_the_name_unit_description_and_type_of_its_definition() -> None:
    exporting = Exporting(B, SENT)
    metrics = exporting.put(
        a_result(B, Sample("users_total", 1, {}), Sample("stored.bytes", 2, {})),
        a_result(SENT, Sample("sent", 1, {}), Sample("open", 1, {})),
    )
    assert {(m.name, m.unit, m.description, type(m.data)) for m in metrics} == {
        ("users_total", "{user}", "Total registered users.", Gauge),
        ("stored.bytes", "By", "Stored.", Gauge),
        ("sent", "{thing}", "Things.", Sum),
        ("open", "{thing}", "Things.", Sum),
    }
    monotonic = {m.name: m.data.is_monotonic for m in metrics if isinstance(m.data, Sum)}
    assert monotonic == {"sent": True, "open": False}


def test_integers_beyond_a_double_stay_exact() -> None:
    exporting = Exporting()
    exporting.put(
        a_result(
            A,
            Sample("users_total", 2**63 - 1, {"kind": "int"}),
            Sample("users_total", 0.1, {"kind": "float"}),
        )
    )
    exported = exporting.values("users_total")
    assert exported == {key(kind="int"): 2**63 - 1, key(kind="float"): 0.1}
    assert type(exported[key(kind="int")]) is int


def test_attributes_keep_their_types() -> None:
    attributes: dict[str, AttributeValue] = {"text": "ä", "truth": True, "whole": 3, "part": 0.5}
    exporting = Exporting()
    ((exported, _),) = values(
        exporting.put(a_result(A, Sample("users_total", 1, attributes))), "users_total"
    ).items()
    assert {name: (type(value), value) for name, value in exported} == {
        name: (type(value), value) for name, value in attributes.items()
    }


def test_data_points_have_the_time_of_the_collection_or_of_their_snapshot() -> None:
    result = a_result(A, Sample("users_total", 1, {}), at=1234.5)
    (at_snapshot,) = Exporting(snapshot_times=True).put(result)
    (at_collection,) = Exporting().put(result)
    assert at_snapshot.data.data_points[0].time_unix_nano == 1_234_500_000_000
    assert at_collection.data.data_points[0].time_unix_nano > 1_234_500_000_000


def test_nothing_is_exported_before_the_first_result() -> None:
    assert Exporting().collect() == []


def test_two_queries_feed_the_same_metric_and_a_stale_query_does_not_affect_the_other() -> None:
    exporting = Exporting()
    metrics = exporting.put(
        a_result(A, Sample("users_total", 1, {"from": "a"})),
        a_result(B, Sample("users_total", 2, {"from": "b"})),
    )
    assert [metric.name for metric in metrics] == ["users_total"]
    assert values(metrics, "users_total") == {key(**{"from": "a"}): 1, key(**{"from": "b"}): 2}
    exporting.now = 100.1
    assert exporting.values("users_total") == {key(**{"from": "b"}): 2}
    exporting.now = 10_000
    assert exporting.collect() == []


def test_a_series_that_two_queries_report_has_no_data_point() -> None:
    exporting = Exporting()
    metrics = exporting.put(
        a_result(A, Sample("users_total", 1, {"k": "both"}), Sample("users_total", 3, {"k": "a"})),
        a_result(B, Sample("users_total", 2, {"k": "both"})),
    )
    assert values(metrics, "users_total") == {key(k="a"): 3}


def test_a_series_that_is_no_longer_in_the_result_is_not_exported() -> None:
    exporting = Exporting()
    both = a_result(A, Sample("users_total", 1, {"k": "x"}), Sample("users_total", 2, {"k": "y"}))
    assert values(exporting.put(both), "users_total") == {key(k="x"): 1, key(k="y"): 2}
    assert values(exporting.put(a_result(A, Sample("users_total", 3, {"k": "y"}))), "users_total") == {
        key(k="y"): 3
    }


def test_a_changed_definition_replaces_the_instrument() -> None:
    exporting = Exporting()
    exporting.put(a_result(A, Sample("users_total", 1, {})))
    other = a_metric("users_total", unit="{member}", description="Members.")
    exporting.queries = (a_query("a", metrics=(other,), interval=60, max_age=100, timeout=1),)
    exporting.store.swap(exporting.queries, set())
    (metric,) = exporting.collect()
    assert (metric.unit, metric.description, len(metric.data.data_points)) == ("{member}", "Members.", 1)


def test_a_sum_has_the_start_time_of_its_sequence_also_after_its_provider_is_replaced() -> None:
    exporting = Exporting(SENT, A)
    starts: list[list[int]] = []

    def collect(*results: PollResult) -> None:
        points = [p for m in exporting.put(*results) if m.name == "sent" for p in m.data.data_points]
        starts.append([point.start_time_unix_nano for point in points])
        assert all(point.start_time_unix_nano <= point.time_unix_nano for point in points)

    collect(a_result(SENT, Sample("sent", 5, {})))
    collect(a_result(SENT, Sample("sent", 6, {})))
    for number in range(3):
        many = (Sample("users_total", n, {"n": f"{number} {n}"}) for n in range(RENEWAL_FLOOR))
        collect(a_result(A, *many))
    assert len({tuple(of_export) for of_export in starts}) == 1, "the sequence must continue"
    collect(a_result(SENT, Sample("sent", 1, {})))
    assert starts[-1][0] > starts[0][0], "a reset starts another sequence"


def test_a_process_that_polls_once_reports_no_start_time() -> None:
    (metric,) = Exporting(SENT, starts=False).put(a_result(SENT, Sample("sent", 5, {})))
    assert not metric.data.data_points[0].start_time_unix_nano


@pytest.mark.slow
def test_the_provider_is_replaced_before_the_attribute_sets_it_keeps_exceed_their_bound() -> None:
    """The SDK keeps every attribute set for the life of a provider: the test counts them."""
    exporting = Exporting(A)
    most = 0
    for number in range(50):
        exporting.put(a_result(A, *(Sample("users_total", n, {"n": f"{number} {n}"}) for n in range(100))))
        most = max(most, len(exporting.instruments._known_sets))  # noqa: SLF001
    assert most <= 2 * 100 + RENEWAL_FLOOR


def test_the_standard_variables_are_read_and_all_mistakes_reported_at_once() -> None:
    temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    exemplars = "OTEL_METRICS_EXEMPLAR_FILTER"
    unset = read_preferences({exemplars: ""})
    assert unset.temporality == {}
    assert isinstance(unset.exemplar_filter, TraceBasedExemplarFilter)
    preferences = read_preferences(
        {
            temporality: "LowMemory",
            aggregation: "base2_exponential_bucket_histogram",
            exemplars: "Always_Off",
        }
    )
    assert preferences.temporality == dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
    assert isinstance(preferences.aggregation[Histogram], ExponentialBucketHistogramAggregation)
    assert isinstance(preferences.exemplar_filter, AlwaysOffExemplarFilter)
    with pytest.raises(ConfigError) as refused:
        read_preferences({temporality: "x", aggregation: "y", exemplars: "z"})
    assert [problem.where for problem in refused.value.problems] == [temporality, aggregation, exemplars]
    assert "'z' is not one of trace_based, always_on, always_off" in str(refused.value)


def test_no_point_starts_after_its_time_when_the_clock_was_set_back() -> None:
    reader = OnDemandReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    meter.create_counter("c").add(1)
    (metric,) = reader.read()
    (point,) = metric.data.data_points
    assert starting_in_time(metric) is metric
    set_back = with_points(metric, [replace(point, time_unix_nano=5)])
    (point,) = starting_in_time(set_back).data.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano) == (5, 5)


@pytest.mark.parametrize("kind", ["gauge", "counter", "updowncounter"])
def test_targets_in_turn_have_only_their_own_values_and_start_times(kind: str) -> None:
    query = a_query("a", metrics=(a_metric("m", type=kind, attribute_columns=("k",)),))
    instruments = CatalogInstruments("1.2.3")
    stores = {name: ResultStore([query]) for name in ("x", "y")}

    def export(target: str) -> dict[Any, Any]:
        frame = Frame(query.metrics, tuple(stores[target].current(0.0)), target=target)
        return {
            (point.attributes["k"], point.value): point.start_time_unix_nano  # type: ignore[index, union-attr]
            for metric in instruments.collect(frame)
            for point in metric.data.data_points
        }

    def put(target: str, **values: int) -> None:
        samples = [
            Sample("m", value, {"k": k}, None if kind == "gauge" else UnbrokenSequence())
            for k, value in values.items()
        ]
        stores[target].put([a_result(query, *samples)], 0.0)

    put("x", both=7, only=1)
    put("y", both=3)
    first = export("x")
    assert first.keys() == {("both", 7), ("only", 1)}
    assert export("y").keys() == {("both", 3)}
    assert export("x") == first
    put("x", both=9)
    assert export("x").keys() == {("both", 9)}
    assert export("y").keys() == {("both", 3)}

"""Counters and histograms: what the SDK's instruments would tell, told by ours."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from poller.errors import ConfigError
from poller.instruments import Counter, Histogram
from poller.preferences import Preferences, read_preferences

BOUNDARIES = (0.001, 0.01, 0.5, 1.0, 10.0)
DELTA = Preferences(frozenset({"counter", "histogram"}))
WITHIN = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
UNSAMPLED = SpanContext(0xABC, 0xDEE, is_remote=False)


class Both:
    """A counter and a histogram of the SDK's and of ours, which are given the same."""

    def __init__(self, preferences: Preferences) -> None:
        self.preferences = preferences
        delta: dict[type, Any] = (
            dict.fromkeys((SdkCounter, SdkHistogram), AggregationTemporality.DELTA)
            if preferences.deltas
            else {}
        )
        exponential: dict[type, Any] = (
            {SdkHistogram: ExponentialBucketHistogramAggregation()} if preferences.exponential else {}
        )
        self.reader = InMemoryMetricReader(delta, exponential)
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        meter = self.provider.get_meter("m")
        self.sdk = (
            meter.create_counter("c", "{c}", "Counted."),
            meter.create_histogram("h", "s", "Measured.", explicit_bucket_boundaries_advisory=BOUNDARIES),
        )
        self.ours = (
            Counter("c", "{c}", "Counted.", preferences),
            Histogram("h", "s", "Measured.", BOUNDARIES, preferences),
        )

    def take(self, value: int | float, within: SpanContext | None = None, **attributes: str) -> None:
        context = set_span_in_context(NonRecordingSpan(within)) if within is not None else None
        count = min(int(value), 2**40)
        self.sdk[0].add(count, attributes, context)
        self.sdk[1].record(value, attributes, context)
        self.ours[0].add(count, attributes, within)
        self.ours[1].record(value, attributes, within)

    def collected(self) -> tuple[list[Metric], list[Metric]]:
        """What the SDK tells and what we tell, without times, which differ."""
        data = self.reader.get_metrics_data()
        theirs = [
            metric
            for resource in (encode_metrics(data).resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        told = [instrument.collect(7) for instrument in self.ours]
        ours = [Metric.FromString(metric.body) for metric in told if metric is not None]
        for metric in (*theirs, *ours):
            for point in points(metric):
                assert point.time_unix_nano
                assert point.start_time_unix_nano
                point.time_unix_nano = point.start_time_unix_nano = 0
                exemplars = sorted(point.exemplars, key=lambda exemplar: -exemplar.as_double)
                for exemplar in exemplars:
                    assert exemplar.time_unix_nano
                    exemplar.time_unix_nano = 0
                del point.exemplars[:]
                point.exemplars.extend(exemplars)  # they have no order
        return theirs, ours


def points(metric: Metric) -> Sequence[Any]:
    return list(getattr(metric, str(metric.WhichOneof("data"))).data_points)


@pytest.fixture(params=[Preferences(), DELTA], ids=["cumulative", "delta"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    both = Both(request.param)
    yield both
    both.provider.shutdown()


def test_what_is_told_is_what_the_sdk_tells(both: Both) -> None:
    for value in (0, 0.001, 0.0011, 3, 10.0, 11.5):
        both.take(value, kind="a")
        both.take(value, kind="b", more="c")
    theirs, ours = both.collected()
    assert ours == theirs
    assert len(ours) == 2
    both.take(2, kind="b", more="c")
    both.take(2)
    theirs, ours = both.collected()
    assert ours == theirs


def test_nothing_measured_is_nothing_told(both: Both) -> None:
    assert both.collected() == ([], [])
    both.take(1)
    both.collected()
    theirs, ours = both.collected()
    assert ours == theirs
    assert bool(ours) == (not both.preferences.deltas)


def test_a_delta_begins_where_the_one_before_ended() -> None:
    counter = Counter("c", "1", "C.", DELTA)
    counter.add(1, {})
    counter.collect(100)
    counter.add(2, {})
    told = counter.collect(200)
    assert told is not None
    (point,) = points(Metric.FromString(told.body))
    assert (point.as_int, point.start_time_unix_nano, point.time_unix_nano) == (2, 100, 200)


def test_a_measurement_within_a_sampled_span_is_an_exemplar_until_it_was_told(both: Both) -> None:
    both.take(0.7, WITHIN)
    both.take(0.0001, WITHIN)
    both.take(5, UNSAMPLED)
    theirs, ours = both.collected()
    assert ours[1] == theirs[1]
    (point,) = points(ours[1])
    assert [exemplar.as_double for exemplar in point.exemplars] == [0.7, 0.0001]
    assert {exemplar.trace_id.hex() for exemplar in point.exemplars} == {f"{0xABC:032x}"}
    assert {exemplar.span_id.hex() for exemplar in point.exemplars} == {f"{0xDEF:016x}"}
    (counted,) = points(ours[0])
    assert [exemplar.span_id.hex() for exemplar in counted.exemplars] == [f"{0xDEF:016x}"]
    both.take(5)
    assert all(not point.exemplars for metric in both.collected()[1] for point in points(metric))
    assert not get_current_span().get_span_context().is_valid, "ours asks nobody for a span"


def test_of_one_bucket_the_last_exemplar_stays() -> None:
    histogram = Histogram("h", "s", "H.", BOUNDARIES, Preferences())
    for value in (0.6, 0.7, 3.0):
        histogram.record(value, {}, WITHIN)
    told = histogram.collect(1)
    assert told is not None
    (point,) = points(Metric.FromString(told.body))
    assert [exemplar.as_double for exemplar in point.exemplars] == [0.7, 3.0]


@pytest.mark.parametrize(("choice", "expected"), [("always_on", 2), ("always_off", 0), ("trace_based", 1)])
def test_the_standard_filter_chooses_the_exemplars(choice: Any, expected: int) -> None:
    counter = Counter("c", "1", "C.", Preferences(exemplars=choice))
    counter.add(1, {"a": "1"}, WITHIN)
    counter.add(1, {"a": "2"})
    told = counter.collect(1)
    assert told is not None
    assert sum(len(point.exemplars) for point in points(Metric.FromString(told.body))) == expected


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [0.25, 70.0, 0.0, 1.5],
        [1.0, 2.0, 4.0, 8.0, 1024.0],
        [1e-9, 1e9],
        [5e-324, 1.7e308],
        [random.Random(seed).lognormvariate(0, 3) for seed in range(300)],
    ],
    ids=["one", "zeros", "durations", "powers", "wide", "extreme", "many"],
)
def test_exponential_buckets_are_those_of_the_sdk(values: list[float]) -> None:
    both = Both(Preferences(exponential=True))
    for value in values:
        both.take(value, kind="a")
    theirs, ours = both.collected()
    (told,), (expected,) = points(ours[1]), points(theirs[1])
    assert (told.scale, told.zero_count, told.count) == (expected.scale, expected.zero_count, expected.count)
    assert sum(told.positive.bucket_counts) + told.zero_count == told.count
    base = 2.0 ** (2.0**-told.scale)
    filled = {told.positive.offset + at: n for at, n in enumerate(told.positive.bucket_counts) if n}
    wanted = {expected.positive.offset + at: n for at, n in enumerate(expected.positive.bucket_counts) if n}
    if all(math.frexp(value)[0] != 0.5 for value in values):  # a power of two may lie on either side
        assert filled == wanted
    for index in filled:
        assert any(index - 1e-3 <= math.log(value, base) <= index + 1 + 1e-3 for value in values if value)
    assert len(told.positive.bucket_counts) <= 160
    assert (told.min, told.max) == (min(values), max(values))
    assert told.sum == pytest.approx(sum(values))


def test_the_standard_variables_are_read_and_all_mistakes_told_at_once() -> None:
    temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    assert read_preferences({}) == Preferences()
    assert read_preferences(
        {
            temporality: "LowMemory",
            aggregation: "base2_exponential_bucket_histogram",
            "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
        }
    ) == Preferences(frozenset({"counter", "histogram"}), exponential=True, exemplars="always_off")
    with pytest.raises(ConfigError) as refused:
        read_preferences({temporality: "x", aggregation: "y", "OTEL_METRICS_EXEMPLAR_FILTER": "z"})
    assert [problem.where for problem in refused.value.problems] == [
        temporality,
        aggregation,
        "OTEL_METRICS_EXEMPLAR_FILTER",
    ]


def test_no_point_ends_before_its_start_after_the_clock_was_set_back(both: Both) -> None:
    both.take(3, kind="a")
    for at in (1000, 900, 2000):  # all of them long before the instruments were made
        told = [instrument.collect(at) for instrument in both.ours]
        ends = [point for metric in told if metric for point in points(Metric.FromString(metric.body))]
        assert ends
        assert all(0 < point.start_time_unix_nano <= point.time_unix_nano == at for point in ends)
        both.take(1, kind="a")

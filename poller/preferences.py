"""The standard variables that choose temporality and histograms of the poller's own metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from poller.errors import ConfigError, Problem

_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_DELTAS: Mapping[str, tuple[type, ...]] = {
    "cumulative": (),
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}
_HISTOGRAM = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
_HISTOGRAMS: Mapping[str, Aggregation] = {
    "explicit_bucket_histogram": ExplicitBucketHistogramAggregation(),
    "base2_exponential_bucket_histogram": ExponentialBucketHistogramAggregation(),
}
T = TypeVar("T")


def read_preferences(
    environ: Mapping[str, str],
) -> tuple[dict[type, AggregationTemporality], dict[type, Aggregation]]:
    """The arguments of a MetricReader: temporality and aggregation by instrument class.

    Raises ConfigError with every variable that has another value. Source: OpenTelemetry specification,
    metrics/sdk_exporters/otlp.md.
    """
    problems: list[Problem] = []

    def chosen(name: str, choices: Mapping[str, T]) -> T:
        given = environ.get(name, "").strip().lower()
        if given and given not in choices:
            problems.append(Problem(name, f"{given!r} is not one of {', '.join(choices)}"))
        return choices.get(given, next(iter(choices.values())))

    deltas = chosen(_TEMPORALITY, _DELTAS)
    histogram = chosen(_HISTOGRAM, _HISTOGRAMS)
    if problems:
        raise ConfigError(problems)
    return dict.fromkeys(deltas, AggregationTemporality.DELTA), {Histogram: histogram}

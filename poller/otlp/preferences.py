"""Standard variables for temporality, histograms and exemplars of the poller's own metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Counter,
    ExemplarFilter,
    Histogram,
    ObservableCounter,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError

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
_EXEMPLARS = "OTEL_METRICS_EXEMPLAR_FILTER"
_FILTERS: Mapping[str, ExemplarFilter] = {
    "trace_based": TraceBasedExemplarFilter(),
    "always_on": AlwaysOnExemplarFilter(),
    "always_off": AlwaysOffExemplarFilter(),
}
T = TypeVar("T")


class Preferences(NamedTuple):
    """Arguments of a MetricReader (the first two) and of a MeterProvider (the last)."""

    temporality: dict[type, AggregationTemporality]
    """Temporality by instrument class; cumulative for all other classes."""
    aggregation: dict[type, Aggregation]
    """Aggregation by instrument class."""
    exemplar_filter: ExemplarFilter


def read_preferences(environ: Mapping[str, str]) -> Preferences:
    """Read the variables; an empty value counts as unset, and case is ignored.

    Raises ConfigError with every variable that has an unknown value. Source: OpenTelemetry specification,
    metrics/sdk_exporters/otlp.md and configuration/sdk-environment-variables.md, "Exemplar".
    """
    problems: list[Diagnostic] = []

    def chosen(name: str, choices: Mapping[str, T]) -> T:
        given = environ.get(name, "").strip().lower()
        if given and given not in choices:
            problems.append(invalid(name, f"{given!r} is not one of {', '.join(choices)}"))
        return choices.get(given, next(iter(choices.values())))

    deltas = chosen(_TEMPORALITY, _DELTAS)
    histogram = chosen(_HISTOGRAM, _HISTOGRAMS)
    exemplars = chosen(_EXEMPLARS, _FILTERS)
    if problems:
        raise ConfigError(problems)
    return Preferences(dict.fromkeys(deltas, AggregationTemporality.DELTA), {Histogram: histogram}, exemplars)

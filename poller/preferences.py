"""Read how the standard variables want counters and histograms to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from poller.errors import ConfigError, Problem

Kind = Literal["counter", "observable_counter", "histogram"]
Exemplars = Literal["trace_based", "always_on", "always_off"]

_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_DELTAS: Mapping[str, frozenset[Kind]] = {
    "cumulative": frozenset(),
    "delta": frozenset(get_args(Kind)),
    "lowmemory": frozenset({"counter", "histogram"}),
}
_HISTOGRAM = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
_HISTOGRAMS = {"explicit_bucket_histogram": False, "base2_exponential_bucket_histogram": True}
_EXEMPLARS = "OTEL_METRICS_EXEMPLAR_FILTER"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What may be chosen for all counters and histograms together."""

    deltas: frozenset[Kind] = frozenset()
    """Instruments that tell what came since the last collection; the others tell all since the start."""
    exponential: bool = False
    """Whether a histogram finds its own buckets, on a scale of powers of 2."""
    exemplars: Exemplars = "trace_based"
    """Which measurements are exemplars: those within a sampled span, all of them, or none."""


def read_preferences(environ: Mapping[str, str]) -> Preferences:
    """What `environ` says; raises ConfigError with every variable that cannot be understood.

    Source: OpenTelemetry specification, metrics/sdk_exporters/otlp.md and
    configuration/sdk-environment-variables.md, "Exemplar".
    """
    problems: list[Problem] = []

    def chosen(name: str, choices: Mapping[str, object]) -> str:
        given = environ.get(name, "").strip().lower()
        if given and given not in choices:
            problems.append(Problem(name, f"{given!r} is not one of {', '.join(choices)}"))
        return given if given in choices else next(iter(choices))

    deltas = _DELTAS[chosen(_TEMPORALITY, _DELTAS)]
    exponential = _HISTOGRAMS[chosen(_HISTOGRAM, _HISTOGRAMS)]
    filters: Mapping[str, Exemplars] = {name: name for name in get_args(Exemplars)}
    exemplars = filters[chosen(_EXEMPLARS, filters)]
    if problems:
        raise ConfigError(problems)
    return Preferences(deltas, exponential, exemplars)

"""Keys of a query that contradict one of its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import ValidationInfo

from poller.config.attributes import label
from poller.config.fields import MisfitError
from poller.config.queries.histogram import LE
from poller.config.queries.schema.metric import DeclaredMetric
from poller.model.query import NO_PARAMETERS


def contradictions(metrics: Sequence[DeclaredMetric], info: ValidationInfo) -> Iterator[ValueError]:
    """Yield the keys of a query that contradict one of its metrics."""
    histogram = next((metric.name for metric in metrics if metric.histogram), None)
    if histogram is not None and len(metrics) > 1:
        yield ValueError(
            f"has {len(metrics)} metrics, but the histogram {histogram} aggregates the rows; "
            "write another query for the others"
        )
    for metric in metrics:
        yield from _metric_problems(metric, info)


def _metric_problems(metric: DeclaredMetric, info: ValidationInfo) -> Iterator[ValueError]:
    if info.data.get("overflow") == "other":
        yield from _other_problems(metric)
    if metric.type == "counter" and info.data.get("estimate") is not None:
        yield MisfitError(
            f"may be lower than the exact value before it, but {metric.name} is a counter; "
            "omit it, or write type: gauge",
            "estimate",
            "metrics",
        )
    runs = info.data.get("parameters") or NO_PARAMETERS
    for name in runs[0]:
        if problem := _parameter_problem(name, metric):
            yield MisfitError(problem, "parameters", "metrics")
    sets = math.prod(len(values) for values in metric.attribute_values.values()) * len(runs)
    if sets > (most := info.data.get("max_series", sets)):
        yield MisfitError(
            f"{metric.name} has {sets} sets of attribute_values and max_series is {most}; "
            f"write max_series: {sets}, or remove attribute_values",
            "max_series",
            "metrics",
        )


def _other_problems(metric: DeclaredMetric) -> Iterator[MisfitError]:
    """Yield why the rows beyond `max_series` cannot be summed up for a metric."""
    if metric.type == "counter":
        # A counter that falls without a reset would be read as one.
        yield MisfitError(
            f"is other, whose sum may fall, but {metric.name} is a counter; write drop, or "
            "type: updowncounter",
            "overflow",
            "metrics",
        )
    if metric.time_column is not None:
        yield MisfitError(
            f"is other, which sums rows of different times, but {metric.name} has a time_column; write drop",
            "overflow",
            "metrics",
        )
    if metric.histogram:
        yield MisfitError("is other, which a histogram does not support; write drop", "overflow")
    elif not metric.attribute_columns:
        yield MisfitError(
            f"is other, which requires attribute_columns; add them to {metric.name}, or write drop",
            "overflow",
        )


def _parameter_problem(name: str, metric: DeclaredMetric) -> str | None:
    """Return the problem of a parameter that has the name of a column or attribute of `metric`."""
    if name == LE and metric.histogram:
        return f"{name!r} is an attribute of the histogram {metric.name}; rename the parameter"
    for key, column in (("value_column", metric.value_column), ("time_column", metric.time_column)):
        if name == column:
            return f"{name!r} is also the {key} of {metric.name}; rename the parameter"
    for key, names in (("attribute_columns", metric.attribute_columns), ("attributes", metric.attributes)):
        if name in map(label, names):
            return (
                f"{name!r} is also in {key} of {metric.name}; remove it there, because each parameter is an "
                "attribute, or rename the parameter"
            )
    return None

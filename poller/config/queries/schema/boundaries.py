"""Boundaries of a histogram, and what they require of the other keys of the metric."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from poller.config.fields import ENDLESS, MisfitError
from poller.config.queries.histogram import LE, MAX_COLUMN_BYTES, SUFFIXES, bucket_columns
from poller.model.prometheus import metric_name
from poller.model.text import quote


def _parse_boundary(value: object) -> object:
    """Parse a finite number; raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < ENDLESS:
        return float(value)
    if value in (math.inf, "+Inf"):
        raise ValueError("is +Inf, which every histogram has; omit it")
    actual = quote(value) if value not in (None, "") else "an empty value"
    raise ValueError(f"{actual} is not a boundary; write a number like 0.5")


MOST_BOUNDARIES = 100
Boundary = Annotated[float, BeforeValidator(_parse_boundary)]
NO_HISTOGRAM = {
    "type": "is not gauge, but the counts of a histogram may fall; omit type",
    "on_null": "has no effect on a histogram, which ignores NULL; omit it, or write coalesce() in sql",
    "alert": "compares one value, and a histogram has many; omit it, and write a rule with "
    "histogram_quantile()",
}


def is_histogram(info: ValidationInfo) -> bool:
    """Return whether the metric has boundaries, even invalid ones, so that all its mistakes are reported."""
    return info.data.get("histogram", True) is not None


def le_problems(attributes: Collection[str], info: ValidationInfo) -> Iterator[ValueError]:
    if LE in attributes and is_histogram(info):
        yield ValueError(f"{LE!r} is the bound of the histogram's buckets; rename it")


def histogram_problems(column: str, info: ValidationInfo) -> Iterator[ValueError]:
    """Yield the problems of the names that a histogram makes of the metric and of its value column."""
    if not is_histogram(info):
        return
    for name in bucket_columns(column, info.data.get("histogram", ())).values():
        if len(name.encode()) > MAX_COLUMN_BYTES:
            yield ValueError(
                f"makes the column {quote(name)} of a histogram, which has more than {MAX_COLUMN_BYTES} "
                "bytes; give the column a shorter name with AS"
            )
            break
    if {"name", "unit"} <= info.data.keys():
        yield from _name_problems(info.data["name"], info.data["unit"])


def _name_problems(name: str, unit: str) -> Iterator[MisfitError]:
    """Yield a problem if Prometheus would append the unit after `_sum`, so that the names differ."""
    longest = max(map(len, SUFFIXES))
    translated = metric_name(f"{name}_sum", unit)
    word = translated.rpartition("_sum_")[2]
    if len(name) + longest > 255:
        yield MisfitError(
            f"has {len(name)} characters; write at most {255 - longest} for a histogram", "name"
        )
    elif translated.endswith("_sum"):
        pass
    elif metric_name(f"{name}_{word}_sum", unit).endswith("_sum"):
        yield MisfitError(
            f"lacks the unit: the sum of the histogram becomes {translated} in Prometheus; "
            f"write {name}_{word}",
            "name",
        )
    else:
        yield MisfitError(
            f"is appended to the name of a gauge: the sum of the histogram becomes {translated} in "
            f"Prometheus; write the unit as the name of a thing, {{{word}}}",
            "unit",
        )

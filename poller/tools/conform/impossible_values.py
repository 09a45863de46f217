"""Impossible values of data points, such as negative counts and buckets that do not add up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from poller.events._catalog.declaration import Metric
from poller.receiver.decode import Distribution, Point


def value_problems(point: Point, metric: Metric) -> Iterator[tuple[str, str]]:
    """Each problem of a data point of `metric`, with an example for the `$` in its text.

    Gauges that the daemon polls may be negative or fractions. An up-down counter may be negative, because
    another process may have counted up.
    """
    if not point.recorded:
        return
    if point.time_unix_nano == 0:
        yield "has no time", ""
    elif point.start_time_unix_nano > point.time_unix_nano:
        yield "has a start time after its time", ""
    if point.value is None:
        yield "has no value", ""
    elif isinstance(point.value, Distribution):
        yield from _of_distribution(point.value, histogram=point.kind == "histogram")
    else:
        yield from _of_number(point.value, metric)


def _of_number(value: float, metric: Metric) -> Iterator[tuple[str, str]]:
    text = f"{value:g}"
    if not math.isfinite(value):
        yield "is $, which is not a finite number", text
    elif metric.event == "health_checked":
        if value not in (0, 1):
            yield "is $; it must be 1 (healthy) or 0 (unhealthy)", text
    elif metric.status != "polled" and metric.instrument != "updowncounter" and value < 0:
        yield "is $, but cannot be below 0", text
    elif metric.status != "polled" and metric.unit != "s" and value != int(value):
        yield "is $, but a count has no fraction", text


def _of_distribution(value: Distribution, *, histogram: bool) -> Iterator[tuple[str, str]]:
    for name, number in (("sum", value.sum), ("min", value.min), ("max", value.max)):
        if number is not None and not math.isfinite(number):
            yield f"has the {name} $, which is not a finite number", f"{number:g}"
        elif number is not None and number < 0:
            yield f"has the {name} $, which cannot be below 0", f"{number:g}"
    if not histogram or not (value.bounds or value.buckets):
        return
    if len(value.buckets) != len(value.bounds) + 1:
        yield "must have one bucket more than boundaries", ""
    elif sum(value.buckets) != value.count:
        yield "has buckets whose counts do not add up to its count", ""
    if not all(lower < upper for lower, upper in pairwise(value.bounds)):
        yield "has boundaries that are not in ascending order", ""

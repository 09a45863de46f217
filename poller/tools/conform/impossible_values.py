"""Values that no server can have measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from poller.events._catalog.declaration import Metric
from poller.receiver.decode import Distribution, Point


def flaws(point: Point, metric: Metric) -> Iterator[tuple[str, str]]:
    """What is impossible about a data point of `metric`, and an example for the `$` in it.

    A gauge that the daemon polls may be negative, or a fraction; an up-down counter of one process may be
    negative, as another may have counted up.
    """
    if not point.recorded:
        return
    if point.time_unix_nano == 0:
        yield "has no time", ""
    elif point.start_time_unix_nano > point.time_unix_nano:
        yield "starts after its own time", ""
    if point.value is None:
        yield "has no value", ""
    elif isinstance(point.value, Distribution):
        yield from _of_distribution(point.value, histogram=point.kind == "histogram")
    else:
        yield from _of_number(point.value, metric)


def _of_number(value: float, metric: Metric) -> Iterator[tuple[str, str]]:
    shown = f"{value:g}"
    if not math.isfinite(value):
        yield "is $, which is no number", shown
    elif metric.event == "health_checked":
        if value not in (0, 1):
            yield "is $; 1 is healthy and 0 is not", shown
    elif metric.status != "polled" and metric.instrument != "updowncounter" and value < 0:
        yield "is $, and cannot be below 0", shown
    elif metric.status != "polled" and metric.unit != "s" and value != int(value):
        yield "is $, and counts what has no fractions", shown


def _of_distribution(value: Distribution, *, histogram: bool) -> Iterator[tuple[str, str]]:
    for name, number in (("sum", value.sum), ("min", value.min), ("max", value.max)):
        if number is not None and not math.isfinite(number):
            yield f"has the {name} $, which is no number", f"{number:g}"
        elif number is not None and number < 0:
            yield f"has the {name} $, and cannot be below 0", f"{number:g}"
    if not histogram or not (value.bounds or value.buckets):
        return
    if len(value.buckets) != len(value.bounds) + 1:
        yield "has not one bucket more than boundaries", ""
    elif sum(value.buckets) != value.count:
        yield "counts in its buckets another number than in all", ""
    if not all(one < other for one, other in pairwise(value.bounds)):
        yield "has boundaries that do not ascend", ""

"""Identity of a series: its attributes as Prometheus compares them; start times of its points."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from poller.model.query import AttributeValue
from poller.model.text import value_text

MetricT = TypeVar("MetricT", bound=Any)
"""A metric of the SDK, which this package does not import."""
Key = tuple[tuple[str, AttributeValue], ...]
"""Attributes, sorted by name."""


def key_of(attributes: Mapping[str, AttributeValue]) -> Key:
    """Return the identity of a series within its metric; Prometheus ignores empty attributes."""
    if not attributes:
        return ()
    items = [item for item in attributes.items() if item[1] != ""]
    items.sort()
    return tuple(items)


def fixed_series(attributes: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """Return the fixed attributes of a series' identity, as text; empty ones are omitted as in Prometheus."""
    return frozenset((name, text) for name, value in attributes.items() if (text := value_text(value)))


def starting_in_time(metric: MetricT) -> MetricT:
    """Return the metric without start times that are later than the point's own time.

    They are later if the clock was set back, or if the series began during the collection, whose time the
    SDK reads first. A corrected point starts at its own time, which marks a sequence of unknown duration
    (OpenTelemetry specification, metrics data model, "Cumulative streams: handling unknown start time").
    """
    points = metric.data.data_points
    if all((point.start_time_unix_nano or 0) <= point.time_unix_nano for point in points):
        return metric
    starts = [min(point.start_time_unix_nano, point.time_unix_nano) for point in points]
    return with_points(
        metric,
        [
            dataclasses.replace(point, start_time_unix_nano=start)
            for point, start in zip(points, starts, strict=True)
        ],
    )


def with_points(metric: MetricT, points: Sequence[Any]) -> MetricT:
    """Return a copy of the metric with other data points; the SDK's objects are never changed in place."""
    return dataclasses.replace(metric, data=dataclasses.replace(metric.data, data_points=points))

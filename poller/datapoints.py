"""Keep the data points of one metric from one collection to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric, NumberDataPoint

from poller.metric import AttributeValue

S = TypeVar("S")
"""What stands for a series: whatever tells it from the others of its metric."""


class DataPoints(Generic[S]):
    """The data points of a gauge or a sum, whose attributes are encoded again only if the series differ.

    Attributes are most of a data point. If a collection has the same series as the one before, only times and
    values are set. Otherwise the message is built again: protobuf frees the memory of a submessage only
    together with its top message, so a message that is kept and changed in shape grows without bound.
    """

    def __init__(self, head: Metric, attributes: Callable[[S], Mapping[str, AttributeValue]]) -> None:
        """`head` is the metric without data points; `attributes` returns those of a series."""
        self.metric = head
        """With the data points of the last call of `of`."""
        self._head = head.SerializeToString()
        self._attributes = attributes
        self._series: list[S] = []
        self._points: list[NumberDataPoint] = []

    def of(self, series: list[S]) -> list[NumberDataPoint]:
        """One data point for each of `series`, in their order; the caller sets times and values."""
        if series != self._series:
            self.metric = metric = Metric.FromString(self._head)
            points = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
            self._points = [self._new(points, one) for one in series]
            self._series = series
        return self._points

    def _new(self, points: Any, series: S) -> NumberDataPoint:
        point: NumberDataPoint = points.add()
        write_attributes(point.attributes, self._attributes(series))
        return point


def write_value(point: NumberDataPoint | Exemplar, value: float) -> None:
    """As a double where it is one, else as an integer: a truth as 1 or 0."""
    if isinstance(value, int):
        point.as_int = int(value)
    else:
        point.as_double = value


def write_attributes(pairs: Any, attributes: Mapping[str, AttributeValue]) -> None:
    """Add each attribute to the repeated KeyValue `pairs`, with the type that it has."""
    for name, value in attributes.items():
        pair: KeyValue = pairs.add(key=name)
        if isinstance(value, str):
            pair.value.string_value = value
        elif isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.double_value = value

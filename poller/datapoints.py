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
    """The data points of a gauge or a sum, whose attributes are written only where the series are others.

    What is written once is most of what a data point takes: a collection that shows the same series as the
    one before gives them another time and value, and nothing else.
    """

    def __init__(self, metric: Metric, attributes: Callable[[S], Mapping[str, AttributeValue]]) -> None:
        """Keep those of `metric`, which has none yet; `attributes` tells those of a series."""
        self.metric = metric
        self._attributes = attributes
        self._told = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
        self._series: list[S] = []
        self._points: list[NumberDataPoint] = []

    def of(self, series: list[S]) -> list[NumberDataPoint]:
        """One data point for each of `series`, in their order, to be given a time and a value; no others."""
        if series != self._series:
            del self._told[:]
            self._points = [self._new(one) for one in series]
            self._series = series
        return self._points

    def _new(self, series: S) -> NumberDataPoint:
        point: NumberDataPoint = self._told.add()
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

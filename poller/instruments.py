"""Count and measure, and word it in OTLP."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from poller.buckets import ExplicitBuckets, ExponentialBuckets
from poller.datapoints import write_attributes, write_value
from poller.encoding import EncodedMetric, encoded
from poller.preferences import Exemplars, Kind, Preferences

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA


class Instrument:
    """A metric of sums that grow with every measurement, one data point for each set of attributes.

    It is a synchronous instrument of the OpenTelemetry specification (metrics API, "Counter", "Histogram")
    with its temporality and its exemplars. The SDK's (1.45) took two fifths of the CPU of a thousand queries;
    here a data point is kept as it is sent, and a measurement is added to it. Threads may measure and collect
    at the same time.
    """

    _kind: Kind

    _new_point: type[Any]

    def __init__(self, head: Metric, preferences: Preferences) -> None:
        """Start at 0, now; `head` is the metric without data points."""
        delta = self._kind in preferences.deltas
        _data(head).aggregation_temporality = _DELTA if delta else _CUMULATIVE
        self._head = head.SerializeToString()
        self._is_delta = delta
        self._exemplars: Exemplars = preferences.exemplars
        self._lock = threading.Lock()
        self._start = time.time_ns()
        # Each point and exemplar is a message of its own, because protobuf frees the memory of a submessage
        # only together with its top message.
        self._points: dict[tuple[tuple[str, str], ...], Any] = {}
        self._witnesses: dict[int, dict[int, Exemplar]] = {}

    def collect(self, at: int) -> EncodedMetric | None:
        """All data points, with the time `at` (nanoseconds since 1970); None if there are none."""
        with self._lock:
            if not self._points:
                return None
            metric = Metric.FromString(self._head)
            data_points = _data(metric).data_points
            for kept in self._points.values():
                kept.time_unix_nano = at
                # After the clock was set back; no point may end before it starts.
                kept.start_time_unix_nano = min(kept.start_time_unix_nano, at)
                data_points.append(kept)
                if witnesses := self._witnesses.get(id(kept)):
                    data_points[-1].exemplars.extend(witnesses.values())
            self._witnesses.clear()
            if self._is_delta:
                self._start = at
                self._points.clear()
            return encoded(metric)

    def _point(self, attributes: Mapping[str, str]) -> Any:
        key = tuple(attributes.items())
        point = self._points.get(key)
        if point is None:
            point = self._points[key] = self._new_point(start_time_unix_nano=self._start)
            write_attributes(point.attributes, attributes)
        return point

    def _witness(self, point: Any, bucket: int, value: float, within: SpanContext | None) -> None:
        """Keep a measurement as an exemplar; of each bucket the last one stays."""
        sampled = within is not None and within.is_valid and within.trace_flags.sampled
        if self._exemplars == "always_off" or (self._exemplars == "trace_based" and not sampled):
            return
        exemplar = Exemplar(time_unix_nano=time.time_ns())
        self._witnesses.setdefault(id(point), {})[bucket] = exemplar
        write_value(exemplar, value)
        if within is not None and within.is_valid:
            exemplar.trace_id = within.trace_id.to_bytes(16, "big")
            exemplar.span_id = within.span_id.to_bytes(8, "big")


def _data(metric: Metric) -> Any:
    return getattr(metric, str(metric.WhichOneof("data")))


class Counter(Instrument):
    """A sum that never falls."""

    _kind = "counter"
    _new_point = NumberDataPoint

    def __init__(self, name: str, unit: str, description: str, preferences: Preferences) -> None:
        metric = Metric(name=name, unit=unit, description=description)
        metric.sum.is_monotonic = True
        super().__init__(metric, preferences)

    def add(self, amount: int, attributes: Mapping[str, str], within: SpanContext | None = None) -> None:
        """Count `amount` more, measured `within` a span."""
        with self._lock:
            point = self._point(attributes)
            point.as_int += amount
            self._witness(point, 0, amount, within)


class Histogram(Instrument):
    """How values that are not negative are distributed."""

    _kind = "histogram"

    def __init__(
        self, name: str, unit: str, description: str, boundaries: Sequence[float], preferences: Preferences
    ) -> None:
        """`boundaries` are of the buckets, unless exponential ones are preferred."""
        metric = Metric(name=name, unit=unit, description=description)
        self._buckets: Any = ExplicitBuckets(boundaries)
        self._new_point = HistogramDataPoint
        if preferences.exponential:
            self._buckets = ExponentialBuckets()
            self._new_point = ExponentialHistogramDataPoint
            metric.exponential_histogram.SetInParent()
        else:
            metric.histogram.SetInParent()
        super().__init__(metric, preferences)

    def record(self, value: float, attributes: Mapping[str, str], within: SpanContext | None = None) -> None:
        """Take in one value, measured `within` a span."""
        with self._lock:
            point = self._point(attributes)
            self._witness(point, self._buckets.take(point, value), value, within)

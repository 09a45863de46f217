"""Count and measure, and word it in OTLP."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

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

    def __init__(self, metric: Metric, preferences: Preferences) -> None:
        """Begin at 0, now; `metric` has no data point yet."""
        delta = self._kind in preferences.deltas
        self._metric = metric
        self._data = getattr(metric, str(metric.WhichOneof("data")))
        self._data.aggregation_temporality = _DELTA if delta else _CUMULATIVE
        self._is_delta = delta
        self._exemplars: Exemplars = preferences.exemplars
        self._lock = threading.Lock()
        self._start = time.time_ns()
        self._points: dict[tuple[tuple[str, str], ...], Any] = {}
        self._witnesses: dict[tuple[int, int], Any] = {}
        self._witnessed: list[Any] = []

    def collect(self, at: int) -> EncodedMetric | None:
        """All of its data points, stamped `at` (nanoseconds since 1970); None where it has none."""
        with self._lock:
            if not self._points:
                return None
            for point in self._points.values():
                point.time_unix_nano = at
                # After the clock was set back; no point may end before it starts.
                point.start_time_unix_nano = min(point.start_time_unix_nano, at)
            told = encoded(self._metric)
            for point in self._witnessed:
                del point.exemplars[:]
            self._witnessed.clear()
            self._witnesses.clear()
            if self._is_delta:
                self._start = at
                self._points.clear()
                del self._data.data_points[:]
            return told

    def _point(self, attributes: Mapping[str, str]) -> Any:
        key = tuple(attributes.items())
        point = self._points.get(key)
        if point is None:
            point = self._points[key] = self._data.data_points.add(start_time_unix_nano=self._start)
            write_attributes(point.attributes, attributes)
        return point

    def _witness(self, point: Any, bucket: int, value: float, within: SpanContext | None) -> None:
        """Keep a measurement as an exemplar; of each bucket the last one stays."""
        sampled = within is not None and within.is_valid and within.trace_flags.sampled
        if self._exemplars == "always_off" or (self._exemplars == "trace_based" and not sampled):
            return
        key = id(point), bucket
        exemplar = self._witnesses.get(key)
        if exemplar is None:
            exemplar = self._witnesses[key] = point.exemplars.add()
            self._witnessed.append(point)
        exemplar.time_unix_nano = time.time_ns()
        write_value(exemplar, value)
        if within is not None and within.is_valid:
            exemplar.trace_id = within.trace_id.to_bytes(16, "big")
            exemplar.span_id = within.span_id.to_bytes(8, "big")


class Counter(Instrument):
    """A sum that never falls."""

    _kind = "counter"

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
        if preferences.exponential:
            self._buckets = ExponentialBuckets()
            metric.exponential_histogram.SetInParent()
        else:
            metric.histogram.SetInParent()
        super().__init__(metric, preferences)

    def record(self, value: float, attributes: Mapping[str, str], within: SpanContext | None = None) -> None:
        """Take in one value, measured `within` a span."""
        with self._lock:
            point = self._point(attributes)
            self._witness(point, self._buckets.take(point, value), value, within)

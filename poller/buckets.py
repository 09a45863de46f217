"""Take a measurement into the buckets of a histogram's data point."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, HistogramDataPoint

_MOST_BUCKETS = 160
_FINEST_SCALE = 20
"""Both as the specification recommends (OpenTelemetry, metrics SDK, "Base2 Exponential Bucket Histogram")."""


class ExplicitBuckets:
    """Buckets with given boundaries, each of which has its upper one in it."""

    def __init__(self, boundaries: Sequence[float]) -> None:
        self._boundaries = boundaries

    def take(self, point: HistogramDataPoint, value: float) -> int:
        """Take in `value`; the number of the bucket that it is in."""
        if not point.count:
            point.explicit_bounds.extend(self._boundaries)
            point.bucket_counts.extend([0] * (len(self._boundaries) + 1))
        _take(point, value)
        bucket = bisect_left(self._boundaries, value)
        point.bucket_counts[bucket] += 1
        return bucket


class ExponentialBuckets:
    """Buckets whose boundaries are powers of a base that gets greater as the values lie further apart.

    The base is 2 to the power of 2 to the power of -scale, and bucket i holds what is greater than base to
    the power of i, up to and with the next power (OpenTelemetry specification, metrics data model,
    "ExponentialHistogram").
    """

    def take(self, point: ExponentialHistogramDataPoint, value: float) -> int:
        """Take in `value`, which is not negative; 0, as buckets do not keep their numbers."""
        _take(point, value)
        if value == 0:
            point.zero_count += 1
            return 0
        counts = point.positive.bucket_counts
        if not counts:
            point.scale = _FINEST_SCALE
        index = math.ceil(math.log2(value) * 2**point.scale) - 1
        low = point.positive.offset if counts else index
        high = low + max(0, len(counts) - 1)
        coarser = 0
        while (max(high, index) >> coarser) - (min(low, index) >> coarser) >= _MOST_BUCKETS:
            coarser += 1
        offset = min(low, index) >> coarser
        merged = [0] * ((max(high, index) >> coarser) - offset + 1)
        for at, count in enumerate(counts, low):
            merged[(at >> coarser) - offset] += count
        merged[(index >> coarser) - offset] += 1
        point.scale -= coarser
        point.positive.offset = offset
        point.positive.bucket_counts[:] = merged
        return 0


def _take(point: HistogramDataPoint | ExponentialHistogramDataPoint, value: float) -> None:
    count = point.count
    if not count:
        point.min = point.max = value
    elif value < point.min:
        point.min = value
    elif value > point.max:
        point.max = value
    point.count = count + 1
    point.sum += value

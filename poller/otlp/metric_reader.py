"""Metric reader of the SDK's instruments."""

from __future__ import annotations

import math
from typing import Any

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation

_INSTRUMENTS = (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
)
_NO_LIMIT: Any = dict.fromkeys(_INSTRUMENTS, 10**9)
"""The SDK counts every attribute set since the start and merges those above its limit (2000) into one data
point. `max_series` limits the attribute sets that are active at the same time."""


class OnDemandReader(MetricReader):
    """A reader that returns what the instruments of its provider report."""

    def __init__(
        self,
        temporality: dict[type, AggregationTemporality] | None = None,
        aggregation: dict[type, Aggregation] | None = None,
    ) -> None:
        super().__init__(temporality, aggregation, cardinality_limits=_NO_LIMIT)
        self._data: MetricsData | None = None

    def read(self) -> list[Metric]:
        """Run every callback and return all metrics that have a data point. Not thread-safe."""
        self.collect(timeout_millis=math.inf)
        data, self._data = self._data, None
        resources = data.resource_metrics if data else ()
        return [
            metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics
        ]

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any) -> None:
        del timeout_millis
        self._data = metrics_data

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Do nothing, because the reader has no thread and no exporter."""

"""Observable instruments over the store: one per metric definition, read at each collection."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, MetricReader, MetricsData, Sum
from opentelemetry.sdk.metrics.view import Aggregation

from poller.closed import key_of
from poller.contest import contested, without
from poller.encoding import SCOPE
from poller.metric import AttributeValue, MetricDefinition
from poller.querymetrics import QueryMetrics
from poller.result import PollResult, Sample

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from poller.store import Freshness, SnapshotStore

RENEWAL_FLOOR = 1000
"""Attribute sets that an unchanged catalogue may go through before its provider is replaced."""

_INSTRUMENTS = (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
)
_NO_LIMIT: Any = dict.fromkeys(_INSTRUMENTS, 10**9)
"""The SDK counts the attribute sets ever seen and folds those above its limit (2000) into one data point.
`max_series` bounds the sets that are alive at once."""


Attributes = Mapping[str, AttributeValue]
_CREATE = {
    "gauge": "create_observable_gauge",
    "counter": "create_observable_counter",
    "updowncounter": "create_observable_up_down_counter",
}


class Collector(MetricReader):
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
        """Do nothing: there is no thread and no exporter."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """What the store shows at one collection; every callback reads the same one."""

    metrics: Sequence[MetricDefinition] = ()
    """All definitions of the catalogue, those without a sample as well."""
    results: Sequence[PollResult] = ()
    """The results whose samples are reported."""
    statuses: Sequence[Freshness] = ()
    """The status of every query."""


def read_store(store: SnapshotStore) -> Frame:
    """The frame of this moment."""
    now = time.monotonic()
    statuses = tuple(store.freshness(now))
    return Frame(
        [metric for status in statuses for metric in status.query.metrics], tuple(store.shown(now)), statuses
    )


class CatalogInstruments:
    """The metrics of a catalogue as observable instruments of the OpenTelemetry SDK.

    The SDK cannot remove an instrument or change its description, and it keeps every attribute set that it
    ever saw (1.39 kB each, opentelemetry-sdk 1.45.2). So the MeterProvider is replaced when the definitions
    change, and when the attribute sets it has seen exceed twice those shown plus RENEWAL_FLOOR.
    """

    def __init__(
        self,
        frame: Callable[[], Frame],
        resource: Resource,
        version: str,
        *,
        query_metrics: QueryMetrics | None = None,
        starts: bool = True,
        snapshot_times: bool = False,
    ) -> None:
        """Report what `frame` returns at each collection, and `query_metrics` of the same frame.

        Without `starts` no sum has a start time: a process that polls once cannot know it. With
        `snapshot_times` each data point has the time of its snapshot instead of the collection's.
        """
        self._query_metrics = query_metrics
        self._frame = frame
        self._resource = resource
        self._version = version
        self._starts = starts
        self._snapshot_times = snapshot_times
        self._shown: dict[str, list[tuple[PollResult, Sample]]] = {}
        self._last: dict[str, PollResult] = {}
        self._seen: set[int] = set()
        self._definitions: Mapping[str, tuple[str, ...]] = {}
        self._provider: MeterProvider | None = None
        self._reader = Collector()

    def collect(self) -> list[Metric]:
        """Each metric with one data point per sample; a series that two results report has none.

        Sums are cumulative, and each data point has the start time of its sequence where one is known.
        """
        frame = self._frame()
        claims = contested(frame.results)
        self._shown = {}
        for result in (without(result, claims) for result in frame.results):
            for sample in result.samples:
                self._shown.setdefault(sample.metric, []).append((result, sample))
        definitions = {metric.name: _identity(metric) for metric in reversed(frame.metrics)}
        self._note_attribute_sets(frame.results)
        if self._query_metrics is not None:
            self._query_metrics.prepare(frame.statuses)
        shown = sum(map(len, self._shown.values()))
        if definitions != self._definitions or len(self._seen) > 2 * shown + RENEWAL_FLOOR:
            self._renew(definitions)
        return [self._dated(metric) for metric in self._reader.read()]

    def shutdown(self) -> None:
        """End the provider."""
        if self._provider is not None:
            self._provider.shutdown()

    def _renew(self, definitions: Mapping[str, tuple[str, ...]]) -> None:
        self.shutdown()
        self._seen.clear()
        self._last.clear()
        self._definitions = definitions
        self._reader = Collector()
        self._provider = MeterProvider(
            # A sample was not measured within a span of this process, so it is never an exemplar.
            [self._reader],
            self._resource,
            AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter(SCOPE, self._version)
        for name, (kind, unit, description) in definitions.items():
            create = getattr(meter, _CREATE[kind])
            create(name, [functools.partial(self._observe, name)], unit=unit, description=description)
        if self._query_metrics is not None:
            self._query_metrics.register(meter)

    def _observe(self, name: str, _: CallbackOptions) -> Iterator[Observation]:
        for _result, sample in self._shown.get(name, ()):
            yield Observation(sample.value, sample.attributes)

    def _note_attribute_sets(self, results: Iterable[PollResult]) -> None:
        """Count the attribute sets that the provider has seen, by their hashes."""
        before, self._last = self._last, {result.query.name: result for result in results}
        for name, result in self._last.items():
            if before.get(name) is not result:
                self._seen.update(
                    hash((sample.metric, key_of(sample.attributes))) for sample in result.samples
                )

    def _dated(self, metric: Metric) -> Metric:
        """The metric with the start times of its sequences and, if asked for, the times of the snapshots."""
        is_sum = isinstance(metric.data, Sum)
        if metric.name not in self._shown or not (is_sum or self._snapshot_times):
            return metric
        shown = {key_of(sample.attributes): (result, sample) for result, sample in self._shown[metric.name]}
        points: list[Any] = []
        for point in metric.data.data_points:
            result, sample = shown[key_of(cast("Attributes", point.attributes))]
            time = round(result.at * 1e9) if self._snapshot_times else point.time_unix_nano
            start = sample.sequence.begun(time) if self._starts and sample.sequence is not None else 0
            points.append(dataclasses.replace(point, time_unix_nano=time, start_time_unix_nano=start))
        return with_points(metric, points)


def starting_in_time(metric: Metric) -> Metric:
    """The metric with no data point that starts after its own time, as when the clock was set back.

    Such a point starts at its own time: a sequence whose duration is not known (OpenTelemetry specification,
    metrics data model, "Cumulative streams: handling unknown start time").
    """
    if all((point.start_time_unix_nano or 0) <= point.time_unix_nano for point in metric.data.data_points):
        return metric
    return with_points(
        metric,
        [
            dataclasses.replace(
                point, start_time_unix_nano=min(point.start_time_unix_nano, point.time_unix_nano)
            )
            for point in metric.data.data_points
        ],
    )


def with_points(metric: Metric, points: list[Any]) -> Metric:
    """The metric with other data points; the SDK's values are never changed in place."""
    data: Any = metric.data
    return dataclasses.replace(metric, data=dataclasses.replace(data, data_points=points))


def _identity(metric: MetricDefinition) -> tuple[str, ...]:
    return metric.type, metric.unit, metric.description

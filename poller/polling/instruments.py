"""Observable instruments over the store: one per metric definition, read at each collection."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    MeterProvider,
)
from opentelemetry.sdk.metrics.export import Metric, Sum

from poller.model.query import AttributeValue, MetricDefinition
from poller.model.result import PollResult, Sample
from poller.model.series import key_of, with_points
from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.request import SCOPE

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from poller.model.result import Freshness
    from poller.polling.store import ResultStore

RENEWAL_FLOOR = 1000
"""Attribute sets above twice the reported number at which an unchanged catalogue's provider is replaced."""

Attributes = Mapping[str, AttributeValue]
_CREATE = {
    "gauge": "create_observable_gauge",
    "counter": "create_observable_counter",
    "updowncounter": "create_observable_up_down_counter",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Content of the store at one collection; all callbacks read the same frame."""

    metrics: Sequence[MetricDefinition] = ()
    """All definitions of the catalogue, including those without a sample."""
    results: Sequence[PollResult] = ()
    """The results whose samples are reported; no series is in two of them."""
    statuses: Sequence[Freshness] = ()
    """The status of every query."""


def read_store(store: ResultStore) -> Frame:
    """Return the content of the store at this moment."""
    now = time.monotonic()
    statuses = tuple(store.freshness(now))
    return Frame(
        [metric for status in statuses for metric in status.query.metrics],
        store.current(now),
        statuses,
    )


class StatusInstruments(Protocol):
    """Instruments that report the status of the queries."""

    def prepare(self, statuses: Sequence[Freshness], /) -> None:
        """Report `statuses` at the next collection."""

    def register(self, meter: Meter, /) -> None:
        """Create the instruments; called again for each new provider."""


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
        query_metrics: StatusInstruments | None = None,
        starts: bool = True,
        snapshot_times: bool = False,
    ) -> None:
        """Report the result of `frame` at each collection, and `query_metrics` of the same frame.

        Without `starts`, sums have no start time, because a process that polls once cannot know it. With
        `snapshot_times`, each data point has the time of its snapshot instead of the collection's.
        """
        self._query_metrics = query_metrics
        self._frame = frame
        self._resource = resource
        self._version = version
        self._starts = starts
        self._snapshot_times = snapshot_times
        self._current: dict[str, list[tuple[PollResult, Sample]]] = {}
        self._last: dict[str, PollResult] = {}
        self._known_sets: set[int] = set()
        self._definitions: Mapping[str, tuple[str, ...]] = {}
        self._provider: MeterProvider | None = None
        self._reader = OnDemandReader()

    def collect(self) -> list[Metric]:
        """Return each metric with one data point per sample.

        Sums are cumulative. Each data point has the start time of its sequence if that is known.
        """
        frame = self._frame()
        self._current = {}
        for result in frame.results:
            for sample in result.samples:
                self._current.setdefault(sample.metric, []).append((result, sample))
        definitions = {metric.name: _identity(metric) for metric in reversed(frame.metrics)}
        self._note_attribute_sets(frame.results)
        if self._query_metrics is not None:
            self._query_metrics.prepare(frame.statuses)
        current = sum(map(len, self._current.values()))
        if definitions != self._definitions or len(self._known_sets) > 2 * current + RENEWAL_FLOOR:
            self._renew(definitions)
        return [self._dated(metric) for metric in self._reader.read()]

    def shutdown(self) -> None:
        """Shut down the provider."""
        if self._provider is not None:
            self._provider.shutdown()

    def _renew(self, definitions: Mapping[str, tuple[str, ...]]) -> None:
        self.shutdown()
        self._known_sets.clear()
        self._last.clear()
        self._definitions = definitions
        self._reader = OnDemandReader()
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
        for _result, sample in self._current.get(name, ()):
            yield Observation(sample.value, sample.attributes)

    def _note_attribute_sets(self, results: Iterable[PollResult]) -> None:
        """Count the attribute sets that the provider has seen, by their hashes."""
        before, self._last = self._last, {result.query.name: result for result in results}
        for name, result in self._last.items():
            if before.get(name) is not result:
                self._known_sets.update(
                    hash((sample.metric, key_of(sample.attributes))) for sample in result.samples
                )

    def _dated(self, metric: Metric) -> Metric:
        """Return the metric with the start times of its sequences and, if requested, the snapshot times."""
        is_sum = isinstance(metric.data, Sum)
        if metric.name not in self._current or not (is_sum or self._snapshot_times):
            return metric
        current = {
            key_of(sample.attributes): (result, sample) for result, sample in self._current[metric.name]
        }
        points: list[Any] = []
        for point in metric.data.data_points:
            result, sample = current[key_of(cast("Attributes", point.attributes))]
            time = round(result.at * 1e9) if self._snapshot_times else point.time_unix_nano
            start = sample.sequence.begun(time) if self._starts and sample.sequence is not None else 0
            points.append(dataclasses.replace(point, time_unix_nano=time, start_time_unix_nano=start))
        return with_points(metric, points)


def _identity(metric: MetricDefinition) -> tuple[str, ...]:
    return metric.type, metric.unit, metric.description

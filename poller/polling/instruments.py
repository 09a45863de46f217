"""Observable instruments over the store, one per metric definition, with the times of their data points."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    MeterProvider,
)
from opentelemetry.sdk.metrics.export import Metric, Sum
from opentelemetry.sdk.resources import Resource

from poller.model.query import AttributeValue, MetricDefinition
from poller.model.result import PollResult, Sample
from poller.model.series import key_of, with_points
from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.request import SCOPE

if TYPE_CHECKING:
    from poller.model.result import Freshness
    from poller.polling.store import ResultStore

RENEWAL_FLOOR = 1000
"""Attribute sets above twice the reported number at which an unchanged catalogue's provider is replaced."""
_NO_RESOURCE = Resource({})
"""The exporter adds the resource of each target."""

Attributes = Mapping[str, AttributeValue]
_CREATE = {
    "gauge": "create_observable_gauge",
    "counter": "create_observable_counter",
    "updowncounter": "create_observable_up_down_counter",
}


class StatusMetrics(Protocol):
    """Gauges about the queries of one target, which are not in its catalogue."""

    @property
    def definitions(self) -> Mapping[str, tuple[str, str]]:
        """Unit and description of each gauge, by name."""

    def read(self, statuses: Sequence[Freshness], /) -> Iterator[tuple[str, float, Attributes]]:
        """Yield the name, value and attributes of each data point."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Content of one store at one collection; all callbacks read the same frame."""

    metrics: Sequence[MetricDefinition] = ()
    """All definitions of the catalogue, including those without a sample."""
    results: Sequence[PollResult] = ()
    """The results whose samples are reported; no series is in two of them."""
    statuses: Sequence[Freshness] = ()
    """The status of every query."""
    more: Sequence[StatusMetrics] = ()
    """Gauges that are reported as well."""
    target: str = ""
    """Target of the store."""


def read_store(store: ResultStore, more: Sequence[StatusMetrics] = (), target: str = "") -> Frame:
    """Return the content of the store of `target` at this moment, with `more` gauges."""
    now = time.monotonic()
    statuses = tuple(store.freshness(now))
    return Frame(
        [metric for status in statuses for metric in status.query.metrics],
        store.current(now),
        statuses,
        more,
        target,
    )


class CatalogInstruments:
    """The metrics of any number of stores as observable instruments of the OpenTelemetry SDK.

    One provider serves all targets, one after the other, because only the exporter needs their resources: 500
    providers with 20 instruments each would take 43 MB. The SDK cannot remove an instrument or change its
    description, and it keeps every attribute set that it ever saw (1.39 kB each, opentelemetry-sdk 1.45.2).
    So the provider is replaced when a definition changes, and when its instruments, or the attribute sets
    that it has seen, exceed twice those of a frame plus RENEWAL_FLOOR. Not thread-safe.
    """

    def __init__(self, version: str, *, starts: bool = True, snapshot_times: bool = False) -> None:
        """Prepare.

        Without `starts`, sums have no start time, because a process that polls once cannot know it. With
        `snapshot_times`, each data point has the time of its snapshot instead of the collection's.
        """
        self._version = version
        self._starts = starts
        self._snapshot_times = snapshot_times
        self._current: dict[str, list[tuple[PollResult, Sample]]] = {}
        self._more: dict[str, list[tuple[float, Attributes]]] = {}
        self._last: dict[str, dict[str, PollResult]] = {}
        self._known_sets: set[int] = set()
        self._definitions: dict[str, tuple[str, ...]] = {}
        self._provider: MeterProvider | None = None
        self._renew()

    def collect(self, frame: Frame) -> list[Metric]:
        """Return each metric of `frame` with one data point per sample.

        Sums are cumulative. Each data point has the start time of its sequence if that is known.
        """
        self._current, self._more = {}, {}
        for result in frame.results:
            for sample in result.samples:
                self._current.setdefault(sample.metric, []).append((result, sample))
        definitions = {metric.name: _identity(metric) for metric in reversed(frame.metrics)}
        for source in frame.more:
            definitions |= {name: ("gauge", *texts) for name, texts in source.definitions.items()}
            for name, value, attributes in source.read(frame.statuses):
                self._more.setdefault(name, []).append((value, attributes))
        self._note_attribute_sets(frame)
        current = sum(map(len, self._current.values())) + sum(map(len, self._more.values()))
        if (
            any(self._definitions.get(name, text) != text for name, text in definitions.items())
            or len(self._definitions) > 2 * len(definitions) + RENEWAL_FLOOR
            or len(self._known_sets) > 2 * current + RENEWAL_FLOOR
        ):
            self._renew()
            self._note_attribute_sets(frame)
        self._create(definitions)
        return [self._dated(metric) for metric in self._reader.read()]

    def forget(self, target: str) -> None:
        """Discard what is known of a target that was removed."""
        self._last.pop(target, None)

    def shutdown(self) -> None:
        """Shut down the provider."""
        if self._provider is not None:
            self._provider.shutdown()

    def _renew(self) -> None:
        self.shutdown()
        self._known_sets.clear()
        self._last.clear()
        self._definitions.clear()
        self._reader = OnDemandReader()
        self._provider = MeterProvider(
            # A sample was not measured within a span of this process, so it is never an exemplar.
            [self._reader],
            _NO_RESOURCE,
            AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._meter = self._provider.get_meter(SCOPE, self._version)

    def _create(self, definitions: Mapping[str, tuple[str, ...]]) -> None:
        """Create the instruments that do not exist; a target may report other metrics than the one before."""
        for name, definition in definitions.items():
            if name not in self._definitions:
                kind, unit, description = self._definitions[name] = definition
                create = getattr(self._meter, _CREATE[kind])
                create(name, [functools.partial(self._observe, name)], unit=unit, description=description)

    def _observe(self, name: str, _: CallbackOptions) -> Iterator[Observation]:
        for _result, sample in self._current.get(name, ()):
            if sample.time is None or not sample.time.exported:
                yield Observation(sample.value, sample.attributes)
        for value, attributes in self._more.get(name, ()):
            yield Observation(value, attributes)

    def _note_attribute_sets(self, frame: Frame) -> None:
        """Count the attribute sets that the provider has seen, by their hashes."""
        before = self._last.get(frame.target, {})
        last = self._last[frame.target] = {result.query.name: result for result in frame.results}
        for name, result in last.items():
            if before.get(name) is not result:
                self._known_sets.update(
                    hash((sample.metric, key_of(sample.attributes))) for sample in result.samples
                )
        for name, points in self._more.items():
            self._known_sets.update(hash((name, key_of(attributes))) for _, attributes in points)

    def _dated(self, metric: Metric) -> Metric:
        """Return the metric with the start times of its sequences, and the times of rows or snapshots."""
        samples = self._current.get(metric.name, ())
        is_dated = isinstance(metric.data, Sum) or any(sample.time for _, sample in samples)
        if not samples or not (is_dated or self._snapshot_times):
            return metric
        current = {key_of(sample.attributes): (result, sample) for result, sample in samples}
        points: list[Any] = []
        for point in metric.data.data_points:
            result, sample = current[key_of(cast("Attributes", point.attributes))]
            time = round(result.at * 1e9) if self._snapshot_times else point.time_unix_nano
            time = time if sample.time is None else sample.time.at
            start = sample.sequence.begun(time) if self._starts and sample.sequence is not None else 0
            points.append(dataclasses.replace(point, time_unix_nano=time, start_time_unix_nano=start))
        return with_points(metric, points)


def _identity(metric: MetricDefinition) -> tuple[str, ...]:
    return metric.type, metric.unit, metric.description

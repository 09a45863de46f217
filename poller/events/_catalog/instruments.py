"""OpenTelemetry instruments of the declared metrics, and their permitted attribute sets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Self

from opentelemetry.metrics import (
    Counter,
    Histogram,
    Meter,
    NoOpMeter,
    ObservableGauge,
    Observation,
    UpDownCounter,
)

from poller.events._catalog.declaration import Attribute, Event, Metric
from poller.events.attributes import OTHER

logger = logging.getLogger(__name__)

_WORD = re.compile(r"[A-Za-z_]{1,40}")


class Instruments:
    """Instruments of one generation, by the event that they record.

    An event without a metric in the generation gets an instrument that does nothing.
    """

    def __init__(self, meter: Meter, metrics: Mapping[str, Metric]) -> None:
        self._meter = meter
        self._metrics = metrics

    def counter(self, event: Event) -> Counter:
        return self._of(event).create_counter(self._name(event), event.unit, event.description)

    def up_down_counter(self, event: Event) -> UpDownCounter:
        return self._of(event).create_up_down_counter(self._name(event), event.unit, event.description)

    def histogram(self, event: Event) -> Histogram:
        return self._of(event).create_histogram(
            self._name(event),
            event.unit,
            event.description,
            explicit_bucket_boundaries_advisory=event.boundaries,
        )

    def observable_gauge(self, event: Event, read: Callable[[], list[Observation]]) -> ObservableGauge:
        """Create a gauge that exports the result of `read` at every collection."""
        return self._of(event).create_observable_gauge(
            self._name(event), [lambda _: read()], event.unit, event.description
        )

    def _of(self, event: Event) -> Meter:
        return self._meter if event.name in self._metrics else NoOpMeter(__name__)

    def _name(self, event: Event) -> str:
        metric = self._metrics.get(event.name)
        return metric.name if metric else event.name


class Labels(dict[str, Mapping[str, str]]):
    """One attribute set for each declared value; every other value maps to the set `other`.

    A misspelt value in a server must neither fail nor lose an event, and clients must not be able to create
    series. Such a value therefore becomes `_OTHER`, and the first occurrence is logged.
    """

    def __init__(self, attribute: Attribute) -> None:
        super().__init__({value: {attribute.name: value} for value in attribute.values})
        self.other: Mapping[str, str] = {attribute.name: OTHER}
        self._attribute = attribute
        self._logged = False

    def __missing__(self, value: str) -> Mapping[str, str]:
        if not self._logged:
            self._logged = True
            # Anything but a plain word may be personal data, such as a client's address.
            text = repr(value) if _WORD.fullmatch(str(value)) else "a value"
            name, values = self._attribute.name, ", ".join(self._attribute.values)
            logger.warning("%s is not declared for the attribute %r; write one of %s", text, name, values)
        return self.other


class Timed:
    """Records the seconds that a block takes, however it ends; `inside` counts the open blocks."""

    __slots__ = ("_begun", "_duration", "_inside")

    def __init__(self, duration: Histogram, inside: UpDownCounter | None = None) -> None:
        self._duration = duration
        self._inside = inside
        self._begun = 0.0

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        if self._inside is not None:
            self._inside.add(1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._inside is not None:
            self._inside.add(-1)
        self._duration.record(time.perf_counter() - self._begun)

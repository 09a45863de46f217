"""Metrics of the events at a receiver, by the names of the events in the catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from poller.events.catalog import GenerationName, declared
from poller.receiver.decode import Distribution, Point
from poller.receiver.receiver import Receiver

PATIENCE = 120.0
"""Longest wait in seconds."""

Series = tuple[str, ...]
"""An event, and the values of its attributes in the order in which they are declared."""


class EventMetricsSeen:
    """The newest value of every series; for a histogram, its count."""

    def __init__(self, receiver: Receiver, generation: GenerationName) -> None:
        self._receiver = receiver
        self.declared = declared(generation)
        self._events = {metric.name: event for event, metric in self.declared.items()}

    async def see(self, value: float, event: str, *attributes: str) -> None:
        """Wait until a series has this value; skip an event without a metric in this generation."""
        await self._wait(event, attributes, lambda current: current == value)

    async def see_at_least(self, value: float, event: str, *attributes: str) -> None:
        """Wait until a series has this value or more."""
        await self._wait(event, attributes, lambda current: current >= value)

    async def see_failed_span(self, name: str) -> None:
        """Wait for a span that failed."""
        await asyncio.to_thread(
            self._receiver.wait_until,
            lambda: self.spans(name, failed=True),
            PATIENCE,
        )

    async def next(self, event: str, *attributes: str) -> float:
        """Return the current value of a series, from an export that begins after this call."""
        now = time.time_ns()
        (point,) = await asyncio.to_thread(
            self._receiver.wait_until,
            lambda: [point for point in self._last(event, attributes) if point.time_unix_nano > now],
            PATIENCE,
        )
        return _number(point)

    def spans(self, name: str, *, failed: bool) -> int:
        """Return the number of spans of a name that have failed, or that have not."""
        return sum((span.status == "error") == failed for span in self._receiver.spans(name))

    def newest(self) -> dict[Series, Point]:
        """Return the last point of every series in the instrumentation scope of the events."""
        return {
            self._series(point): point for point in self._receiver.points() if point.scope == "poller.events"
        }

    async def _wait(self, event: str, attributes: tuple[str, ...], holds: Callable[[float], bool]) -> None:
        if event not in self.declared:
            return

        await asyncio.to_thread(
            self._receiver.wait_until,
            lambda: any(holds(_number(point)) for point in self._last(event, attributes)),
            PATIENCE,
        )

    def _last(self, event: str, attributes: tuple[str, ...]) -> list[Point]:
        """Return the point of a series in the last export; an empty list if it was absent."""
        for received in reversed(self._receiver.requests()):
            if points := received.points():
                name, series = self.declared[event].name, (event, *attributes)
                return [point for point in points if point.metric == name and self._series(point) == series]
        return []

    def _series(self, point: Point) -> Series:
        event = self._events.get(point.metric)
        if event is None:
            return point.metric, *map(str, point.attributes.values())
        names = [attribute.name for attribute in self.declared[event].attributes]
        assert point.attributes.keys() == set(names)
        return event, *(str(point.attributes[name]) for name in names)


def _number(point: Point) -> float:
    if isinstance(point.value, Distribution):
        return point.value.count
    assert point.value is not None
    return point.value

"""What a receiver holds of the events, by their names in the catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from poller.events.catalog import GenerationName, declared
from poller.receiver.decode import Distribution, Point
from poller.receiver.receiver import Receiver

PATIENCE = 120.0
"""Seconds until it gives up."""

Series = tuple[str, ...]
"""An event, and the values of its attributes in the order in which they are declared."""


class EventMetricsSeen:
    """The newest value of every series; of a histogram how often it was recorded."""

    def __init__(self, receiver: Receiver, generation: GenerationName) -> None:
        self._receiver = receiver
        self.declared = declared(generation)
        self._events = {metric.name: event for event, metric in self.declared.items()}

    async def see(self, value: float, event: str, *attributes: str) -> None:
        """Wait until a series has this value; an event without a metric in this generation is passed over."""
        await self._wait(event, attributes, lambda told: told == value)

    async def see_at_least(self, value: float, event: str, *attributes: str) -> None:
        """Wait until a series has this value or more."""
        await self._wait(event, attributes, lambda told: told >= value)

    async def see_failed_span(self, name: str) -> None:
        """Wait for a span that failed."""
        await asyncio.to_thread(
            self._receiver.wait_until,
            lambda: self.spans(name, failed=True),
            PATIENCE,
        )

    async def next(self, event: str, *attributes: str) -> float:
        """The value of a series as it is now: that of an export that begins after this."""
        now = time.time_ns()
        (point,) = await asyncio.to_thread(
            self._receiver.wait_until,
            lambda: [one for one in self._last(event, attributes) if one.time_unix_nano > now],
            PATIENCE,
        )
        return _number(point)

    def spans(self, name: str, *, failed: bool) -> int:
        """How many spans of a name have failed, or have not."""
        return sum((span.status == "error") == failed for span in self._receiver.spans(name))

    def newest(self) -> dict[Series, Point]:
        """The last point of every series of the instrumentation scope that events are told by."""
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
        """The point of a series in the last export; none where it was not there."""
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

"""Gauges of the polled server: role, timeline, replay lag and age of its data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from poller.model.query import AttributeValue

if TYPE_CHECKING:
    from poller.postgres.server_tracker import ServerInfo, ServerTracker

_GAUGES: tuple[tuple[str, str, str, Callable[[ServerInfo, float], float | None]], ...] = (
    ("lag", "s", "Replay lag at the last poll; absent while it is unknown.", lambda server, _: server.lag),
    (
        "data_age",
        "s",
        "Maximum age of the state of the primary that the values show.",
        lambda server, since: None if server.data_age is None else server.data_age + since,
    ),
    (
        "standby",
        "{standby}",  # a unit of 1 would make it a `_ratio` in Prometheus
        "1 while the server is a standby, 0 while it is a primary.",
        lambda server, _: int(server.standby),
    ),
    (
        "timeline",
        "{timeline}",
        "Timeline of the server; it grows by one at a promotion.",
        lambda server, _: server.timeline,
    ),
)


class ReplicaMetrics:
    """The state of the server of one target as gauges; they are absent if it was not seen for too long."""

    definitions: ClassVar[Mapping[str, tuple[str, str]]] = {
        f"poller.replica.{name}": (unit, description) for name, unit, description, _ in _GAUGES
    }

    def __init__(self, tracker: ServerTracker, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracker = tracker
        self._clock = clock

    def read(self, _: object) -> Iterator[tuple[str, float, Mapping[str, AttributeValue]]]:
        """Yield the data points of one collection."""
        now = self._clock()
        server = self._tracker.current(now)
        if server is not None:
            attributes: dict[str, AttributeValue] = {
                "server.address": server.address,
                "server.port": server.port,
            }
            for name, _unit, _description, read in _GAUGES:
                if (value := read(server, now - server.at)) is not None:
                    yield f"poller.replica.{name}", value, attributes

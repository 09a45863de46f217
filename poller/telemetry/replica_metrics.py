"""Gauges of the polled server: role, timeline, replay lag and age of its data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

if TYPE_CHECKING:
    from poller.postgres.server_tracker import ServerInfo, ServerTracker


def register_replica_gauges(
    meter: Meter, tracker: ServerTracker, clock: Callable[[], float] = time.monotonic
) -> None:
    """Create the gauges of the polled server; they are absent if it was not seen for too long."""

    def gauge(
        name: str, unit: str, description: str, read: Callable[[ServerInfo, float], float | None]
    ) -> None:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            now = clock()
            server = tracker.current(now)
            value = read(server, now - server.at) if server else None
            if server and value is not None:
                yield Observation(value, {"server.address": server.address, "server.port": server.port})

        meter.create_observable_gauge(f"poller.replica.{name}", [observe], unit=unit, description=description)

    gauge("lag", "s", "Replay lag at the last poll; absent while it is unknown.", lambda s, _: s.lag)
    gauge(
        "data_age",
        "s",
        "Maximum age of the state of the primary that the values show.",
        lambda s, since: None if s.data_age is None else s.data_age + since,
    )
    gauge(
        "standby",
        "{standby}",  # a unit of 1 would make it a `_ratio` in Prometheus
        "1 while the server is a standby, 0 while it is a primary.",
        lambda s, _: int(s.standby),
    )
    gauge(
        "timeline",
        "{timeline}",
        "Timeline of the server; it grows by one at a promotion.",
        lambda s, _: s.timeline,
    )

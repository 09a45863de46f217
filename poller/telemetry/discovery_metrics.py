"""Gauges `poller.discovery.*`: the databases of one server by state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from poller.telemetry.poll_metrics import STATE

if TYPE_CHECKING:
    from poller.model.result import Freshness
    from poller.postgres.database_list import DatabaseState


class DiscoveryMetrics:
    """The last successful discovery of the databases of a server, as gauges."""

    definitions: ClassVar[Mapping[str, tuple[str, str]]] = {
        "poller.discovery.databases": ("{database}", "Databases of the server by state."),
        "poller.discovery.last_success": (
            "s",
            "Time at which the list of databases was read, in seconds since 1970.",
        ),
    }

    def __init__(self) -> None:
        self.counts: Mapping[DatabaseState, int] = {}
        self.last_success: float | None = None

    def read(self, _: Sequence[Freshness]) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the data points of one collection; none before the first success."""
        for state, count in self.counts.items():
            yield "poller.discovery.databases", count, {STATE: state}
        if self.last_success is not None:
            yield "poller.discovery.last_success", self.last_success, {}

"""The server's gauges: exact names and values, and none if the information is too old."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Metric, NumberDataPoint

from poller.polling.instruments import CatalogInstruments, Frame
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.replica_metrics import ReplicaMetrics

Series = dict[frozenset[tuple[str, Any]], Any]


class Bed:
    """The gauges of a tracker, collected at a time that the test chooses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tracker = ServerTracker(30.0)
        self._metrics = ReplicaMetrics(self.tracker, lambda: self.now)
        self._instruments = CatalogInstruments("1.2.3")

    def read(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in self._instruments.collect(Frame(more=[self._metrics]))}

    def values(self, name: str) -> Series:
        metric = self.read().get(name)
        return {
            frozenset((point.attributes or {}).items()): point.value
            for point in (metric.data.data_points if metric else ())
            if isinstance(point, NumberDataPoint)
        }


@pytest.fixture
def bed() -> Bed:
    return Bed()


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def test_the_servers_gauges_are_those_of_the_last_connection_and_age_with_it(bed: Bed) -> None:
    assert bed.read() == {}
    info = ServerInfo("10.0.0.1", 5432, standby=True, timeline=3, lag=2.5, data_age=3.0, why="x", at=100.0)
    bed.tracker.record(info)
    bed.now = 110.0
    place = key(**{"server.address": "10.0.0.1", "server.port": 5432})
    assert {name: bed.values(name) for name in bed.read()} == {
        "poller.replica.lag": {place: 2.5},
        "poller.replica.data_age": {place: 13.0},
        "poller.replica.standby": {place: 1},
        "poller.replica.timeline": {place: 3},
    }
    bed.tracker.record(
        replace(info, standby=False, timeline=None, lag=None, data_age=None, port=5433, at=110.0)
    )
    place = key(**{"server.address": "10.0.0.1", "server.port": 5433})
    assert {name: bed.values(name) for name in bed.read()} == {"poller.replica.standby": {place: 0}}
    bed.now = 140.1
    assert bed.read() == {}, "an old lag must not be exported"

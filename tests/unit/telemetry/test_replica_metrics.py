"""The server's gauges: exact names and values, and none if the information is too old."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric, NumberDataPoint

from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.replica_metrics import register_replica_gauges

Series = dict[frozenset[tuple[str, Any]], Any]


class Bed:
    """A real meter with an in-memory reader, over a store with a manual clock."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.now = 0.0
        self.meter = self.provider.get_meter("poller")

    def clock(self) -> float:
        return self.now

    def read(self) -> dict[str, Metric]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> Series:
        metric = self.read().get(name)
        return {
            frozenset((point.attributes or {}).items()): point.value
            for point in (metric.data.data_points if metric else ())
            if isinstance(point, NumberDataPoint)
        }


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    yield bed
    bed.provider.shutdown()


def key(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset(attributes.items())


def test_the_servers_gauges_are_those_of_the_last_connection_and_age_with_it(bed: Bed) -> None:
    tracker = ServerTracker(30.0)
    register_replica_gauges(bed.meter, tracker, bed.clock)
    assert bed.read() == {}
    info = ServerInfo("10.0.0.1", 5432, standby=True, timeline=3, lag=2.5, data_age=3.0, why="x", at=100.0)
    tracker.record(info)
    bed.now = 110.0
    place = key(**{"server.address": "10.0.0.1", "server.port": 5432})
    assert {name: bed.values(name) for name in bed.read()} == {
        "poller.replica.lag": {place: 2.5},
        "poller.replica.data_age": {place: 13.0},
        "poller.replica.standby": {place: 1},
        "poller.replica.timeline": {place: 3},
    }
    tracker.record(replace(info, standby=False, timeline=None, lag=None, data_age=None, port=5433, at=110.0))
    place = key(**{"server.address": "10.0.0.1", "server.port": 5433})
    assert {name: bed.values(name) for name in bed.read()} == {"poller.replica.standby": {place: 0}}
    bed.now = 140.1
    assert bed.read() == {}, "an old lag must not be exported"

"""The metrics of the process: exact names, units, values and attributes."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import NumberDataPoint

from poller.daemon.server_queues import Waiting
from poller.model.shards import Shard
from poller.otlp.metric_reader import OnDemandReader
from poller.telemetry.process_metrics import register_leader, register_queue, register_shard


def registered(register: Callable[[Meter], None]) -> set[tuple[str, str | None, float, str]]:
    """Return name, unit, value and attributes of each data point of the metrics that `register` creates."""
    reader = OnDemandReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    register(provider.get_meter("poller"))
    return {
        (metric.name, metric.unit, point.value, str(point.attributes))
        for metric in reader.read()
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    }


def test_the_metrics_of_an_election_have_its_name() -> None:
    attributes = "{'poller.leader.election': 'e'}"
    assert registered(lambda meter: register_leader(meter, "e", lambda: (True, 3))) == {
        ("poller.leader", "{leader}", 1, attributes),
        ("poller.leader.changes", "{change}", 3, attributes),
    }


def test_the_number_and_the_delay_of_waiting_targets_are_gauges_without_attributes() -> None:
    assert registered(lambda meter: register_queue(meter, lambda: Waiting(7, 1.5))) == {
        ("poller.queue.targets", "{target}", 7, "{}"),
        ("poller.queue.delay", "s", 1.5, "{}"),
    }


def test_the_gauges_of_a_shard_have_its_index() -> None:
    attributes = "{'poller.shard.index': '2'}"
    assert registered(lambda meter: register_shard(meter, Shard(2, 5), lambda: 7)) == {
        ("poller.shard.count", "{shard}", 5, attributes),
        ("poller.shard.targets", "{target}", 7, attributes),
    }

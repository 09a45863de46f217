"""Encoding: requests of an acceptable size contain all points of a collection unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.resources import Resource

from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.request import Request, encode, halves, is_encodable, message
from poller.otlp.signals import format_of
from poller.receiver.decode import Point, points_of

RESOURCE = Resource({"service.name": "a", "deep": [1, 2]})
VERSION = "1.0"


@pytest.fixture(scope="module")
def collected() -> list[Metric]:
    """Return a gauge, up-down counters, counters and a histogram with 37 points in all."""
    reader = OnDemandReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("one")

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for number in range(20):
            yield Observation(number + 0.5, {"number": number})

    meter.create_observable_gauge("gauge", [observe], unit="By", description="A gauge.")
    for number in range(5):
        meter.create_counter("counter", "1", "A counter.").add(number, {"number": number})
        meter.create_up_down_counter("balance").add(-number, {"number": number})
        meter.create_histogram("histogram", "s").record(number, {"number": number})
    meter.create_counter("last").add(1)
    meter.create_counter("very_last").add(1)
    return reader.read()


def points(*requests: Request) -> list[Point]:
    return [
        point
        for request in requests
        for point in points_of(ExportMetricsServiceRequest.FromString(request.body))
    ]


def whole(collected: list[Metric]) -> ExportMetricsServiceRequest:
    return message([(RESOURCE, collected)], VERSION)


def test_points_that_fit_into_a_request_are_a_single_request(collected: list[Metric]) -> None:
    (request,) = encode([(RESOURCE, collected)], VERSION)
    assert ExportMetricsServiceRequest.FromString(request.body) == whole(collected)
    assert request.items == 37


@pytest.mark.parametrize("most", [1, 100, 300, 500, 900, 1500, 10_000])
def test_a_split_keeps_every_point_with_its_metadata(collected: list[Metric], most: int) -> None:
    requests = encode([(RESOURCE, collected)], VERSION, most_bytes=most)
    assert sum(request.items for request in requests) == 37
    assert points(*requests) == list(points_of(whole(collected)))
    assert all(request.items == 1 or len(request.body) <= most for request in requests)
    names = [
        metric.name
        for request in requests
        for scope in ExportMetricsServiceRequest.FromString(request.body).resource_metrics[0].scope_metrics
        for metric in scope.metrics
    ]
    assert len(names) >= len(requests), "a request is empty"


def test_repeated_halving_ends_at_single_points(collected: list[Metric]) -> None:
    queue, done = encode([(RESOURCE, collected)], VERSION), []
    while queue:
        request = queue.pop(0)
        parts = halves(request, format_of("metrics"))
        if request.items > 1:
            assert [part.items for part in parts] == [-(-request.items // 2), request.items // 2]
            queue = [*parts, *queue]
        else:
            assert parts == [request]
            done.append(request)
    assert points(*done) == list(points_of(whole(collected)))


def test_an_empty_collection_makes_no_request() -> None:
    assert encode([], VERSION) == []


def test_a_value_that_otlp_cannot_encode_is_reported_with_its_metric() -> None:
    reader = OnDemandReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("one")
    meter.create_observable_gauge("huge", [lambda _: [Observation(2**63)]])
    meter.create_observable_gauge("fine", [lambda _: [Observation(2**63 - 1)]])
    assert {metric.name: is_encodable(metric) for metric in reader.read()} == {"huge": False, "fine": True}

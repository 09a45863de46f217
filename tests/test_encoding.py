"""Encoding: the points of a collection, in requests that a collector takes, none lost and none altered."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from poller.encoding import Request, encode, encoded, halves, message
from poller.receiver.points import Point, points_of


@pytest.fixture(scope="module")
def collected() -> MetricsData:
    """A gauge, an up-down counter, a counter and a histogram in two scopes, 37 points in all."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader], Resource({"service.name": "a", "deep": [1, 2]}), shutdown_on_exit=False
    )
    one = provider.get_meter("one", "1.0", "https://example.org/schema")
    two = provider.get_meter("two", "2.0", attributes={"scope": "attribute"})

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for number in range(20):
            yield Observation(number + 0.5, {"number": number})

    one.create_observable_gauge("gauge", [observe], unit="By", description="A gauge.")
    for number in range(5):
        one.create_counter("counter", "1", "A counter.").add(number, {"number": number})
        two.create_up_down_counter("balance").add(-number, {"number": number})
        two.create_histogram("histogram", "s").record(number, {"number": number})
    two.create_counter("last").add(1)
    two.create_counter("very_last").add(1)
    data = reader.get_metrics_data()
    assert data is not None
    return data


def points(*requests: Request) -> list[Point]:
    return [
        point
        for request in requests
        for point in points_of(ExportMetricsServiceRequest.FromString(request.body))
    ]


def test_what_fits_into_one_request_is_the_sdks_own(collected: MetricsData) -> None:
    (request,) = encode(collected)
    whole = encode_metrics(collected)
    assert ExportMetricsServiceRequest.FromString(request.body) == whole
    assert request.points == 37


@pytest.mark.parametrize("most", [1, 100, 300, 500, 900, 1500, 10_000])
def test_a_split_keeps_every_point_with_all_that_is_said_of_it(collected: MetricsData, most: int) -> None:
    requests = encode(collected, most_bytes=most)
    assert sum(request.points for request in requests) == 37
    assert points(*requests) == list(points_of(encode_metrics(collected)))
    longest_head = 300  # resource, scope and schema
    assert all(request.points == 1 or len(request.body) <= most + longest_head for request in requests)
    assert len(requests) <= max(1, math.ceil(2 * len(encode(collected)[0].body) / most)), "they are full"
    schemas = {
        scope.schema_url
        for request in requests
        for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "one"
    }
    assert schemas == {"https://example.org/schema"}


def test_more_metrics_stand_in_the_first_scope(collected: MetricsData) -> None:
    more = [Metric(name="a"), Metric(name="b", gauge=Gauge(data_points=[NumberDataPoint(as_int=7)]))]
    (request,) = encode(collected, map(encoded, more))
    whole = message(collected, more[1:])
    assert ExportMetricsServiceRequest.FromString(request.body) == whole, "a metric without a point is none"
    assert request.points == 38


def test_halves_of_halves_end_at_single_points(collected: MetricsData) -> None:
    left, done = encode(collected), []
    while left:
        request = left.pop(0)
        parts = halves(request)
        if request.points > 1:
            assert [part.points for part in parts] == [-(-request.points // 2), request.points // 2]
            left = [*parts, *left]
        else:
            assert parts == [request]
            done.append(request)
    assert points(*done) == list(points_of(encode_metrics(collected)))


def test_nothing_collected_makes_no_request() -> None:
    assert encode(MetricsData([])) == []
    assert encode(MetricsData([]), [encoded(Metric(name="a"))]) == []


def test_what_has_no_scope_to_stand_in_is_not_left_out_without_a_word() -> None:
    more = [encoded(Metric(name="b", gauge=Gauge(data_points=[NumberDataPoint(as_int=7)])))]
    with pytest.raises(ValueError, match="no scope"):
        encode(MetricsData([]), more)

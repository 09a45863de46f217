"""Encode what was collected into requests of a size that a collector takes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE = "poller"
"""Name of the instrumentation scope of everything pushed."""
MAX_SIZE = 1_000_000
"""Bytes of the metrics in one request: some 10,000 ordinary data points. nginx takes 1 MiB unless told
otherwise; a gRPC server, and so the collector's receiver, 4 MiB."""


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded ExportMetricsServiceRequest."""

    body: bytes
    points: int
    """Data points in it."""


class EncodedMetric(NamedTuple):
    """One encoded Metric."""

    body: bytes
    points: int
    """Data points in it."""


class _Place(NamedTuple):
    """Where a metric stands: its resource and its scope, each encoded with what is said of it."""

    resource: bytes
    scope: bytes


def encoded(metric: Metric) -> EncodedMetric:
    """Encode a metric with all of its data points."""
    return EncodedMetric(metric.SerializeToString(), len(_points(metric)))


def encode(
    data: MetricsData, more: Iterable[EncodedMetric] = (), most_bytes: int = MAX_SIZE
) -> list[Request]:
    """Encode a collection, and `more` metrics of its first scope; without data points no request.

    A request is full at `most_bytes` of metrics, but has one data point at least.

    Raises whatever the SDK's encoder raises for a value that OTLP cannot carry, and ValueError for `more`
    without a scope.
    """
    told = _metrics(encode_metrics(data))
    first = next(told, None)
    if first is None:
        if any(metric.points for metric in more):
            raise ValueError("there is no scope that the metrics could stand in")
        return []
    place, own = first
    return list(_packed([(place, itertools.chain(own, more)), *told], most_bytes=most_bytes))


def without_unencodable(data: MetricsData) -> tuple[MetricsData, set[str]]:
    """The same without the metrics that hold a value OTLP cannot carry, and the names of these."""
    bad: set[str] = set()

    def fits(resource: ResourceMetrics, scope: ScopeMetrics, metric: Any) -> bool:
        alone = replace(resource, scope_metrics=[replace(scope, metrics=[metric])])
        try:
            encode_metrics(MetricsData([alone]))
        except Exception:  # noqa: BLE001 - the encoder raises anything
            bad.add(metric.name)
            return False
        return True

    def fitting(resource: ResourceMetrics) -> ResourceMetrics:
        scopes = [
            replace(scope, metrics=[metric for metric in scope.metrics if fits(resource, scope, metric)])
            for scope in resource.scope_metrics
        ]
        return replace(resource, scope_metrics=scopes)

    return MetricsData([fitting(resource) for resource in data.resource_metrics]), bad


def message(data: MetricsData, more: Iterable[Metric] = ()) -> ExportMetricsServiceRequest:
    """The same as one message, whatever its size."""
    whole = encode_metrics(data)
    if more := list(more):
        whole.resource_metrics[0].scope_metrics[0].metrics.extend(more)
    return whole


def nothing(resource: Resource, version: str) -> MetricsData:
    """A collection of our scope, at its `version`, that has no metric yet."""
    scope = ScopeMetrics(InstrumentationScope(SCOPE, version), [], "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def halves(request: Request) -> list[Request]:
    """The same data points in two requests; fewer than two points are one request, or none."""
    whole = ExportMetricsServiceRequest.FromString(request.body)
    return list(_packed(_metrics(whole), most_points=max(1, -(-request.points // 2))))


def _metrics(whole: ExportMetricsServiceRequest) -> Iterator[tuple[_Place, Iterable[EncodedMetric]]]:
    """The metrics of each scope, and where it stands."""
    for resource in whole.resource_metrics:
        told = metrics_pb2.ResourceMetrics(resource=resource.resource, schema_url=resource.schema_url)
        of_resource = told.SerializeToString()
        for scope in resource.scope_metrics:
            of_scope = metrics_pb2.ScopeMetrics(scope=scope.scope, schema_url=scope.schema_url)
            yield _Place(of_resource, of_scope.SerializeToString()), map(encoded, scope.metrics)


def _packed(
    told: Iterable[tuple[_Place, Iterable[EncodedMetric]]],
    most_points: float = math.inf,
    most_bytes: float = math.inf,
) -> Iterator[Request]:
    """The data points in their order, in requests that are full, but for the last one."""
    part = _Part()
    for place, metrics in told:
        for metric in metrics:
            start = 0
            while start < metric.points:
                each = len(metric.body) / metric.points
                room = min(most_points - part.points, (most_bytes - part.size) // each)
                if room < 1 and part.points:
                    yield part.request()
                    part = _Part()
                    continue
                end = int(min(metric.points, start + max(1, room)))
                part.add(place, metric if end - start == metric.points else _cut(metric, start, end))
                start = end
    if part.points:
        yield part.request()


class _Part:
    """A request that grows.

    It is put together from what is encoded already: a message inside another is its number, its length and
    itself (Protocol Buffers, "Encoding", "Length-Delimited Records").
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes of its metrics."""
        self.points = 0
        self._scopes: list[tuple[_Place, list[bytes]]] = []

    def add(self, place: _Place, metric: EncodedMetric) -> None:
        if not self._scopes or self._scopes[-1][0] is not place:
            self._scopes.append((place, []))
        body = metric.body
        self._scopes[-1][1].extend((_head(metrics_pb2.ScopeMetrics.METRICS_FIELD_NUMBER, len(body)), body))
        self.size += len(body)
        self.points += metric.points

    def request(self) -> Request:
        """All of it; a resource or a scope that goes on is not repeated."""
        told: list[bytes] = []
        for resource, scopes in itertools.groupby(self._scopes, lambda scope: scope[0].resource):
            of_resource = [resource]
            for place, metrics in scopes:
                number = metrics_pb2.ResourceMetrics.SCOPE_METRICS_FIELD_NUMBER
                of_resource += _field(number, [place.scope, *metrics])
            told += _field(ExportMetricsServiceRequest.RESOURCE_METRICS_FIELD_NUMBER, of_resource)
        return Request(b"".join(told), self.points)


def _field(number: int, message: list[bytes]) -> list[bytes]:
    """An encoded message as a field of another: in pieces, as it may be large."""
    return [_head(number, sum(map(len, message))), *message]


@functools.lru_cache(1024)
def _head(number: int, length: int) -> bytes:
    """What stands before a message of `length` bytes that is the field `number` of another."""
    return bytes([number << 3 | 2, *_varint(length)])


def _varint(number: int) -> Iterator[int]:
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number


def _cut(metric: EncodedMetric, start: int, end: int) -> EncodedMetric:
    """A metric with its data points from `start` up to, not including, `end`."""
    part = Metric.FromString(metric.body)
    points = _points(part)
    del points[end:]
    del points[:start]
    return encoded(part)


def _points(metric: Metric) -> Any:
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()

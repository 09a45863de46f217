"""Encode what was collected into requests of a size that a collector takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE = "poller"
"""Name of the instrumentation scope of everything pushed."""
MAX_POINTS = 8000
"""Data points of one request: 0.7 MB of ordinary ones. A gRPC server takes 4 MiB unless told otherwise, and
so does the collector's receiver."""


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded ExportMetricsServiceRequest."""

    body: bytes
    points: int
    """Data points in it."""


def encode(data: MetricsData, more: Iterable[Metric] = ()) -> list[Request]:
    """Encode a collection, once, and `more` metrics of its (only) scope; without data points no request.

    Raises whatever the SDK's encoder raises for a value that OTLP cannot carry.
    """
    return [_request(part) for part in _split(message(data, more), MAX_POINTS)]


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
    return [_request(part) for part in _split(whole, max(1, -(-_count(whole) // 2)))]


def _request(message: ExportMetricsServiceRequest) -> Request:
    return Request(message.SerializeToString(), _count(message))


def _count(message: ExportMetricsServiceRequest) -> int:
    return sum(len(points) for *_, points in _metrics(message))


def _metrics(message: ExportMetricsServiceRequest) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Each metric with its resource, its scope and its data points."""
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if kind := metric.WhichOneof("data"):
                    yield resource, scope, metric, getattr(metric, kind).data_points


def _split(whole: ExportMetricsServiceRequest, most: int) -> Iterator[ExportMetricsServiceRequest]:
    """The data points in their order, in messages of at most `most`."""
    count = _count(whole)
    if count <= most:
        if count:
            yield whole
        return
    part = _Part()
    for resource, scope, metric, points in _metrics(whole):
        start = 0
        while start < len(points):
            end = min(len(points), start + most - part.points)
            part.add(resource, scope, metric, points, start, end)
            start = end
            if part.points == most:
                yield part.message
                part = _Part()
    if part.points:
        yield part.message


class _Part:
    """A message that grows; a resource or a scope that goes on is not repeated."""

    def __init__(self) -> None:
        self.message = ExportMetricsServiceRequest()
        self.points = 0
        self._resource: Any = None
        self._scope: Any = None

    def add(self, resource: Any, scope: Any, metric: Any, points: Any, start: int, end: int) -> None:
        """Add the data points of a metric from `start` up to, not including, `end`."""
        if resource is not self._resource:
            self._resource, self._scope = resource, None
            self.message.resource_metrics.add(schema_url=resource.schema_url, resource=resource.resource)
        scopes = self.message.resource_metrics[-1].scope_metrics
        if scope is not self._scope:
            self._scope = scope
            scopes.add(schema_url=scope.schema_url, scope=scope.scope)
        if end - start == len(points):
            scopes[-1].metrics.append(metric)
        else:
            _add_part(scopes[-1].metrics, metric, points[start:end])
        self.points += end - start


def _add_part(metrics: Any, metric: Any, points: Any) -> None:
    """Add a metric with some of its data points only."""
    told = metrics.add(
        name=metric.name, description=metric.description, unit=metric.unit, metadata=metric.metadata
    )
    kind = metric.WhichOneof("data")
    source, target = getattr(metric, kind), getattr(told, kind)
    for name in ("aggregation_temporality", "is_monotonic"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))
    target.data_points.extend(points)

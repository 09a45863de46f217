"""Encode collected metrics into OTLP requests of a size that collectors accept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE = "poller"
"""Name of the instrumentation scope of everything that is exported."""
MAX_SIZE = 1_000_000
"""Bytes of one request: some 10,000 ordinary data points. nginx accepts 1 MiB by default, a gRPC server,
and so the collector's receiver, 4 MiB."""


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded ExportMetricsServiceRequest."""

    body: bytes
    points: int
    """Data points in it."""


def encode(
    metrics: Sequence[Metric], resource: Resource, version: str, most_bytes: int = MAX_SIZE
) -> list[Request]:
    """Encode `metrics` of our scope at its `version`; without data points there is no request.

    A request has at most `most_bytes`, or one data point. Raises what the SDK's encoder raises for a value
    that OTLP cannot carry.
    """
    return list(_split(message(metrics, resource, version), most_bytes))


def message(metrics: Sequence[Metric], resource: Resource, version: str) -> ExportMetricsServiceRequest:
    """The same as one message, whatever its size."""
    scope = ScopeMetrics(InstrumentationScope(SCOPE, version), metrics, "")
    return encode_metrics(MetricsData([ResourceMetrics(resource, [scope], "")]))


def is_encodable(metric: Metric) -> bool:
    """Whether OTLP can carry all values of a metric."""
    try:
        message([metric], Resource({}), "")
    except Exception:  # noqa: BLE001 - the encoder raises anything
        return False
    return True


def halves(request: Request) -> list[Request]:
    """The same data points in two requests; a request with one data point stays one."""
    whole = ExportMetricsServiceRequest.FromString(request.body)
    return [Request(part.SerializeToString(), _count(part)) for part in _parts(whole, min(2, request.points))]


def _split(whole: ExportMetricsServiceRequest, most_bytes: int) -> Iterator[Request]:
    points = _count(whole)
    count = min(points, math.ceil(whole.ByteSize() / most_bytes))
    if count > 1:
        for part in _parts(whole, count):
            yield from _split(part, most_bytes)
    elif points:
        yield Request(whole.SerializeToString(), points)


def _parts(whole: ExportMetricsServiceRequest, count: int) -> Iterator[ExportMetricsServiceRequest]:
    """The data points of `whole` in `count` messages with equally many, in their order."""
    each = math.ceil(_count(whole) / count)
    for start in range(0, _count(whole), each):
        part = ExportMetricsServiceRequest()
        part.CopyFrom(whole)
        position = 0
        for scope in _scopes(part):
            for metric in scope.metrics:
                points = _points(metric)
                first, last = start - position, start + each - position
                position += len(points)
                del points[max(0, last) :]
                del points[: max(0, first)]
            kept = [metric for metric in scope.metrics if len(_points(metric))]
            del scope.metrics[:]
            scope.metrics.extend(kept)
        yield part


def _count(message: ExportMetricsServiceRequest) -> int:
    return sum(len(_points(metric)) for scope in _scopes(message) for metric in scope.metrics)


def _scopes(message: ExportMetricsServiceRequest) -> Iterator[Any]:
    for resource in message.resource_metrics:
        yield from resource.scope_metrics


def _points(metric: Any) -> Any:
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else []

"""Turn an OTLP request into the data points it carries, every value exactly as it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2

from poller.receiver.attributes import Attribute, attributes_of

Kind = Literal["gauge", "sum", "histogram", "exponential_histogram", "summary"]

_TEMPORALITIES: dict[int, Literal["delta", "cumulative"]] = {
    metrics_pb2.AGGREGATION_TEMPORALITY_DELTA: "delta",
    metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram, exponential histogram or summary."""

    count: int
    sum: float | None
    min: float | None = None
    max: float | None = None
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets but the last; a histogram's only."""
    buckets: tuple[int, ...] = ()
    """One count more than there are bounds; a histogram's only."""


@dataclass(frozen=True, slots=True)
class Point:
    """One data point, with all that is said of its metric, its scope and its resource."""

    metric: str
    value: int | float | Distribution | None
    """An int where the sender sent `as_int`, a float where `as_double`; None where it sent neither."""
    attributes: Mapping[str, Attribute]
    unit: str
    description: str
    kind: Kind
    time_unix_nano: int
    start_time_unix_nano: int
    resource: Mapping[str, Attribute]
    scope: str
    temporality: Literal["delta", "cumulative"] | None = None
    """None for a gauge and a summary, which have none, and for others that name none."""
    monotonic: bool | None = None
    """None for anything but a sum."""
    recorded: bool = True
    """False for a point that says that its series has no value any more."""
    scope_attributes: Mapping[str, Attribute] = field(default_factory=dict)
    exemplars: tuple[Mapping[str, Attribute], ...] = ()
    """The attributes of each exemplar that the point itself does not have."""


def points_of(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    """Yield the data points of one request, in the order in which they stand there."""
    for resource_metrics in request.resource_metrics:
        resource = attributes_of(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            scope, scope_attributes = scope_metrics.scope.name, attributes_of(scope_metrics.scope.attributes)
            for metric in scope_metrics.metrics:
                yield from _points(metric, resource, scope, scope_attributes)


def _points(
    metric: metrics_pb2.Metric,
    resource: Mapping[str, Attribute],
    scope: str,
    scope_attributes: Mapping[str, Attribute],
) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    for point in data.data_points:
        yield Point(
            metric=metric.name,
            value=_number(point) if kind in ("gauge", "sum") else _distribution(point),
            attributes=attributes_of(point.attributes),
            unit=metric.unit,
            description=metric.description,
            kind=kind,
            time_unix_nano=point.time_unix_nano,
            start_time_unix_nano=point.start_time_unix_nano,
            resource=resource,
            scope=scope,
            temporality=_TEMPORALITIES.get(getattr(data, "aggregation_temporality", 0)),
            monotonic=data.is_monotonic if kind == "sum" else None,
            recorded=not point.flags & metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK,
            scope_attributes=scope_attributes,
            exemplars=tuple(
                attributes_of(exemplar.filtered_attributes) for exemplar in getattr(point, "exemplars", ())
            ),
        )


def _number(point: metrics_pb2.NumberDataPoint) -> int | float | None:
    which = point.WhichOneof("value")
    return None if which is None else getattr(point, which)


def _distribution(
    point: metrics_pb2.HistogramDataPoint
    | metrics_pb2.ExponentialHistogramDataPoint
    | metrics_pb2.SummaryDataPoint,
) -> Distribution:
    if isinstance(point, metrics_pb2.SummaryDataPoint):
        return Distribution(point.count, point.sum)
    told = Distribution(
        point.count,
        point.sum if point.HasField("sum") else None,
        point.min if point.HasField("min") else None,
        point.max if point.HasField("max") else None,
    )
    if isinstance(point, metrics_pb2.ExponentialHistogramDataPoint):
        return told
    return replace(told, bounds=tuple(point.explicit_bounds), buckets=tuple(point.bucket_counts))

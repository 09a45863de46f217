"""Decoder of OTLP requests into data points, spans and log records, with unchanged values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

ReceivedValue = str | bool | int | float | bytes | None | list["ReceivedValue"] | dict[str, "ReceivedValue"]


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, ReceivedValue]:
    """Return the attributes by name; the last of duplicate names wins."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> ReceivedValue:
    """Return one value exactly as sent; None if it is empty."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    item: ReceivedValue = getattr(value, which)
    return item


MetricKind = Literal["gauge", "sum", "histogram", "exponential_histogram", "summary"]

_TEMPORALITIES: dict[int, Literal["delta", "cumulative"]] = {
    metrics_pb2.AGGREGATION_TEMPORALITY_DELTA: "delta",
    metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """Value of a histogram, exponential histogram or summary."""

    count: int
    sum: float | None
    min: float | None = None
    max: float | None = None
    bounds: tuple[float, ...] = ()
    """Upper bounds of all buckets except the last; only for a histogram."""
    buckets: tuple[int, ...] = ()
    """Bucket counts, one more than bounds; only for a histogram."""


@dataclass(frozen=True, slots=True)
class Point:
    """One data point with the data of its metric, scope and resource."""

    metric: str
    value: int | float | Distribution | None
    """An int for `as_int`, a float for `as_double`; None if the sender set neither."""
    attributes: Mapping[str, ReceivedValue]
    unit: str
    description: str
    kind: MetricKind
    time_unix_nano: int
    start_time_unix_nano: int
    resource: Mapping[str, ReceivedValue]
    scope: str
    temporality: Literal["delta", "cumulative"] | None = None
    """None for a gauge or summary, and if the sender set none."""
    monotonic: bool | None = None
    """None except for a sum."""
    recorded: bool = True
    """False if the point marks the end of its series (no recorded value)."""
    scope_attributes: Mapping[str, ReceivedValue] = field(default_factory=dict)
    exemplars: tuple[Mapping[str, ReceivedValue], ...] = ()
    """Attributes of each exemplar that the point itself does not have."""


def points_of(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    """Yield the data points of one request in their order."""
    for resource_metrics in request.resource_metrics:
        resource = attributes_of(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            scope, scope_attributes = scope_metrics.scope.name, attributes_of(scope_metrics.scope.attributes)
            for metric in scope_metrics.metrics:
                yield from _points(metric, resource, scope, scope_attributes)


def _points(
    metric: metrics_pb2.Metric,
    resource: Mapping[str, ReceivedValue],
    scope: str,
    scope_attributes: Mapping[str, ReceivedValue],
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
    distribution = Distribution(
        point.count,
        point.sum if point.HasField("sum") else None,
        point.min if point.HasField("min") else None,
        point.max if point.HasField("max") else None,
    )
    if isinstance(point, metrics_pb2.ExponentialHistogramDataPoint):
        return distribution
    return replace(distribution, bounds=tuple(point.explicit_bounds), buckets=tuple(point.bucket_counts))


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record with the data of its scope and resource."""

    body: ReceivedValue
    attributes: Mapping[str, ReceivedValue]
    severity: int
    """1 to 24 (logs data model, "SeverityNumber"); 0 if unspecified."""
    severity_text: str
    event_name: str
    trace_id: str
    """32 hexadecimal digits; empty outside of a span."""
    span_id: str
    """16 hexadecimal digits; empty outside of a span."""
    time_unix_nano: int
    resource: Mapping[str, ReceivedValue]
    scope: str
    """Name of the logger, for most senders."""
    scope_attributes: Mapping[str, ReceivedValue]


def records_of(request: ExportLogsServiceRequest) -> Iterator[LogRecord]:
    """Yield the log records of one request in their order."""
    for resource_logs in request.resource_logs:
        resource = attributes_of(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            scope_attributes = attributes_of(scope_logs.scope.attributes)
            for record in scope_logs.log_records:
                yield LogRecord(
                    body=value_of(record.body),
                    attributes=attributes_of(record.attributes),
                    severity=int(record.severity_number),
                    severity_text=record.severity_text,
                    event_name=record.event_name,
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    time_unix_nano=record.time_unix_nano,
                    resource=resource,
                    scope=scope_logs.scope.name,
                    scope_attributes=scope_attributes,
                )


SpanKind = Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
SpanStatus = Literal["unset", "ok", "error"]

_KINDS: tuple[SpanKind, ...] = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES: tuple[SpanStatus, ...] = ("unset", "ok", "error")


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """One event within a span."""

    name: str
    attributes: Mapping[str, ReceivedValue]
    time_unix_nano: int


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Link from a span to another span."""

    attributes: Mapping[str, ReceivedValue]
    trace_state: str
    """Value in the format of the header `tracestate`."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span with the data of its scope and resource."""

    name: str
    kind: SpanKind
    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    parent_span_id: str
    """Empty for a root span."""
    attributes: Mapping[str, ReceivedValue]
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    status: SpanStatus
    status_message: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    resource: Mapping[str, ReceivedValue]
    scope: str
    scope_attributes: Mapping[str, ReceivedValue]
    trace_state: str
    """Value in the format of the header `tracestate`."""


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """Yield the spans of one request in their order."""
    for resource_spans in request.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope, scope_attributes = scope_spans.scope.name, attributes_of(scope_spans.scope.attributes)
            for span in scope_spans.spans:
                yield _span(span, resource, scope, scope_attributes)


def _span(
    span: trace_pb2.Span,
    resource: Mapping[str, ReceivedValue],
    scope: str,
    scope_attributes: Mapping[str, ReceivedValue],
) -> Span:
    return Span(
        name=span.name,
        kind=_KINDS[span.kind] if span.kind < len(_KINDS) else "unspecified",
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        attributes=attributes_of(span.attributes),
        events=tuple(
            SpanEvent(event.name, attributes_of(event.attributes), event.time_unix_nano)
            for event in span.events
        ),
        links=tuple(SpanLink(attributes_of(link.attributes), link.trace_state) for link in span.links),
        status=_STATUSES[span.status.code] if span.status.code < len(_STATUSES) else "unset",
        status_message=span.status.message,
        start_time_unix_nano=span.start_time_unix_nano,
        end_time_unix_nano=span.end_time_unix_nano,
        resource=resource,
        scope=scope,
        scope_attributes=scope_attributes,
        trace_state=span.trace_state,
    )

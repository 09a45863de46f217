"""Turn an OTLP request into the spans it carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from poller.receiver.attributes import Attribute, attributes_of

SpanKind = Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
SpanStatus = Literal["unset", "ok", "error"]

_KINDS: tuple[SpanKind, ...] = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES: tuple[SpanStatus, ...] = ("unset", "ok", "error")


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened within a span."""

    name: str
    attributes: Mapping[str, Attribute]
    time_unix_nano: int


@dataclass(frozen=True, slots=True)
class SpanLink:
    """What a span points to."""

    attributes: Mapping[str, Attribute]
    trace_state: str
    """As the header `tracestate` has it."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span, with all that is said of its scope and its resource."""

    name: str
    kind: SpanKind
    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    parent_span_id: str
    """Empty for a root."""
    attributes: Mapping[str, Attribute]
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    status: SpanStatus
    status_message: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    resource: Mapping[str, Attribute]
    scope: str
    scope_attributes: Mapping[str, Attribute]
    trace_state: str
    """As the header `tracestate` has it."""


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """Yield the spans of one request, in the order in which they stand there."""
    for resource_spans in request.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope, scope_attributes = scope_spans.scope.name, attributes_of(scope_spans.scope.attributes)
            for span in scope_spans.spans:
                yield _span(span, resource, scope, scope_attributes)


def _span(
    span: trace_pb2.Span,
    resource: Mapping[str, Attribute],
    scope: str,
    scope_attributes: Mapping[str, Attribute],
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

"""Turn an OTLP request into the log records it carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from poller.receiver.attributes import Attribute, attributes_of, value_of


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record, with all that is said of its scope and its resource."""

    body: Attribute
    attributes: Mapping[str, Attribute]
    severity: int
    """1 to 24 (logs data model, "SeverityNumber"), 0 where none is told."""
    severity_text: str
    event_name: str
    trace_id: str
    """32 hexadecimal digits; empty outside of any span."""
    span_id: str
    """16 hexadecimal digits; empty outside of any span."""
    time_unix_nano: int
    resource: Mapping[str, Attribute]
    scope: str
    """The logger, as most senders have it."""
    scope_attributes: Mapping[str, Attribute]


def records_of(request: ExportLogsServiceRequest) -> Iterator[LogRecord]:
    """Yield the log records of one request, in the order in which they stand there."""
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

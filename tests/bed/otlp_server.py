"""A server that sends every event and signal over OTLP, through OpenTelemetry's SDK and exporters."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from poller.events import EventMetrics
from poller.events.catalog import GenerationName
from poller.receiver.listener import Transport
from tests.bed.event_calls import EVENT_CALLS

SERVICE = "sending-server"


def send_everything(
    endpoint: str, protocol: Transport, generation: GenerationName = "document", log: str = "sent"
) -> None:
    """Send four requests: two spans, one log record, all metrics."""
    metric, span, record = _exporters(endpoint, protocol)
    resource = Resource({"service.name": SERVICE, "host.ip": ["10.0.0.7"]})
    reader = PeriodicExportingMetricReader(metric, export_interval_millis=3_600_000)
    meters = MeterProvider([reader], resource, shutdown_on_exit=False)
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(span))
    loggers = LoggerProvider(resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(record))

    events = EventMetrics(meters, generation=generation)
    for report, _ in EVENT_CALLS:
        report(events)
    tracer = tracers.get_tracer("the server")
    root: dict[str, str | int] = {
        "http.request.method": "POST",
        "url.path": "/v1/messages",
        "http.route": "/v1/messages",
        "http.response.status_code": 201,
        "request.id": "0190163d-8694-739b-aea5-966c26f8ad90",
        "user.id": "0190163d-8694-739b-aea5-966c26f8ad91",
    }
    with tracer.start_as_current_span("POST /v1/messages", kind=SpanKind.SERVER, attributes=root):
        peer = {
            "db.system.name": "postgresql",
            "server.address": "10.0.0.5",
            "network.peer.address": "10.0.0.5",
        }
        with tracer.start_as_current_span("INSERT messages", kind=SpanKind.CLIENT, attributes=peer) as inner:
            inner.add_event("stored", {"rows": 1})
        loggers.get_logger("server.messages").emit(body=log, attributes={"count": 1})
    for provider in (loggers, tracers, meters):
        provider.shutdown()


def _exporters(endpoint: str, protocol: Transport) -> tuple[Any, Any, Any]:
    if protocol == "grpc":
        return (
            GrpcMetricExporter(endpoint=endpoint),
            GrpcSpanExporter(endpoint=endpoint),
            GrpcLogExporter(endpoint=endpoint),
        )
    return (
        HttpMetricExporter(endpoint=f"{endpoint}/v1/metrics"),
        HttpSpanExporter(endpoint=f"{endpoint}/v1/traces"),
        HttpLogExporter(endpoint=f"{endpoint}/v1/logs"),
    )


REQUESTS = 4

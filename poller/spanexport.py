"""Export the poller's own spans over OTLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from poller import otlp
from poller.courier import Courier
from poller.errors import ConfigError, Problem

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Tracer

    from poller.endpoint import Endpoint


class Spans:
    """A tracer, and a thread that sends what it made, every few seconds and at the end.

    What waits is bounded (OTEL_BSP_MAX_QUEUE_SIZE, 2048 spans); the oldest gives way. Which traces are made
    is for the standard OTEL_TRACES_SAMPLER to say; by default it is all.
    """

    def __init__(
        self, endpoint: Endpoint, resource: Resource, timeout: float, *, asked_for: bool = True
    ) -> None:
        """Begin; `timeout` bounds one batch with all its retries, in seconds.

        Spans that are sent by default were not `asked_for`.

        Raises ConfigError where a standard OTEL_EXPORTER_OTLP_* or OTEL_BSP_* variable cannot be used, or the
        package for HTTP is missing.
        """
        sender = otlp.build(endpoint, timeout, signal="traces")
        self._courier = Courier(
            sender, str(endpoint), "spans", "POLLER_TRACES=false", timeout, asked_for=asked_for
        )
        try:
            processor = BatchSpanProcessor(_Exporter(self._courier))
        except ValueError as error:
            raise ConfigError([Problem("OTEL_BSP_*", str(error))]) from None
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self.tracer: Tracer = self._provider.get_tracer(
            "poller", str(resource.attributes.get("service.version", ""))
        )

    def shutdown(self, timeout: float) -> None:
        """Send what waits and end, within `timeout` seconds even where the collector hangs."""
        self._courier.end(self._provider.shutdown, timeout)


class _Exporter(SpanExporter):
    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        taken = self._courier.carry(lambda: encode_spans(spans).SerializeToString(), len(spans))
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

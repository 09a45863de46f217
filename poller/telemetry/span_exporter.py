"""OTLP export of the poller's own spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.otlp.signal_exporter import SignalExport

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Tracer

    from poller.model.otlp_endpoint import Endpoint


class Spans:
    """A tracer, and the export of its spans, every few seconds (OTEL_BSP_*) and at the end.

    The standard OTEL_TRACES_SAMPLER selects the traces that are recorded; by default all are.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        resource: Resource,
        timeout: float,
        *,
        requested: bool = True,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Start the export; `timeout` bounds one request, in seconds.

        Spans that are exported by default are not `requested`. `meter_provider` receives the SDK's own
        metrics of its processor, if OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED enables them.

        Raises ConfigError if a standard OTEL_EXPORTER_OTLP_* or OTEL_BSP_* variable cannot be used, or if the
        package for HTTP is missing.
        """
        self._export = SignalExport("traces", endpoint, timeout, requested=requested)
        self.delivery = self._export.delivery
        try:
            processor = BatchSpanProcessor(_SpanExporter(self._export), meter_provider=meter_provider)
        except ValueError as error:
            raise ConfigError([invalid("OTEL_BSP_*", str(error))]) from None
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self.tracer: Tracer = self._provider.get_tracer(
            "poller", str(resource.attributes.get("service.version", ""))
        )

    def shutdown(self, timeout: float) -> None:
        """Send the queue and end, within `timeout` seconds even if the collector hangs."""
        self._export.shutdown(self._provider.shutdown, timeout)


class _SpanExporter(SpanExporter):
    def __init__(self, export: SignalExport) -> None:
        self._export = export

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        queued = self._export.export(encode_spans, spans)
        return SpanExportResult.SUCCESS if queued else SpanExportResult.FAILURE

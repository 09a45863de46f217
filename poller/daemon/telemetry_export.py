"""Export of the spans and log records of one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from poller.telemetry.traces import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # noqa: TID251 - for type checking only
    from opentelemetry.trace import Tracer

    from poller.model.otlp_endpoint import Endpoint
    from poller.otlp.exporter import MetricExporter
    from poller.otlp.retry_sender import RetrySender


class _Part(Protocol):
    delivery: RetrySender

    def shutdown(self, timeout: float) -> None: ...


class TelemetryExport:
    """Export of spans and log records; without either no SDK is imported."""

    def __init__(
        self,
        resource: Resource | None = None,
        *,
        timeout: float = 10.0,
        traces: Endpoint | None = None,
        requested: bool = False,
        logs: Endpoint | None = None,
        own: MetricExporter | None = None,
    ) -> None:
        """Start the exports to the endpoints `traces` and `logs`; `own` receives the metrics of all exports.

        `resource` is required with an endpoint. A collector that refuses spans causes a warning
        only if they were `requested`. `timeout` bounds one request, in seconds. Raises ConfigError if a
        standard variable cannot be used, or if the package for HTTP is missing.
        """
        self._parts: list[_Part] = []
        self._tracer: Tracer | None = None
        meter_provider = own.meter_provider if own is not None else None
        if traces is not None and resource is not None:
            from poller.telemetry.span_exporter import Spans

            spans = Spans(traces, resource, timeout, requested=requested, meter_provider=meter_provider)
            self._parts.append(spans)
            self._tracer = spans.tracer
        if logs is not None and resource is not None:
            from poller.telemetry.log_exporter import LogRecords

            self._parts.append(LogRecords(logs, resource, timeout, meter_provider=meter_provider))
        if own is not None:
            from poller.telemetry.export_metrics import register_exports

            register_exports(own.meter, [own.delivery, *(part.delivery for part in self._parts)])

    def tracing_of(self, target: str) -> Tracing:
        """Return the spans of one target; empty: of the only one."""
        return Tracing(self._tracer, target)

    def shutdown(self, timeout: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Send the queues and end, within `timeout` seconds even if the collector hangs.

        Returns early as soon as `stopped` returns true.
        """
        endings = [
            threading.Thread(target=part.shutdown, args=[timeout], name="ending", daemon=True)
            for part in self._parts
        ]
        for ending in endings:
            ending.start()
        deadline = time.monotonic() + timeout + 0.2
        for ending in endings:
            while ending.is_alive() and not stopped() and (left := deadline - time.monotonic()) > 0:
                ending.join(min(left, 0.2))

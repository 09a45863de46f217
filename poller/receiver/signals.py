"""The three signals of OTLP: paths, methods and message types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from poller.model.otlp_endpoint import Signal

if TYPE_CHECKING:
    from poller.receiver.answers import CannedAnswer

ExportRequest = ExportMetricsServiceRequest | ExportTraceServiceRequest | ExportLogsServiceRequest
ExportResponse = ExportMetricsServiceResponse | ExportTraceServiceResponse | ExportLogsServiceResponse


@dataclass(frozen=True, slots=True)
class SignalKind:
    """One signal (OTLP specification 1.10, "OTLP/gRPC" and "OTLP/HTTP")."""

    signal: Signal
    service: str
    """Name of the gRPC service."""
    request: type[ExportRequest]

    @property
    def path(self) -> str:
        """Path of HTTP requests."""
        return f"/v1/{self.signal}"

    def response(self, answer: CannedAnswer) -> ExportResponse:
        """Return the response to an accepted request, including a partial success."""
        if not answer.rejected and not answer.message:
            return _RESPONSES[self.signal]()
        if self.signal == "metrics":
            metrics = ExportMetricsPartialSuccess(
                rejected_data_points=answer.rejected, error_message=answer.message
            )
            return ExportMetricsServiceResponse(partial_success=metrics)
        if self.signal == "traces":
            spans = ExportTracePartialSuccess(rejected_spans=answer.rejected, error_message=answer.message)
            return ExportTraceServiceResponse(partial_success=spans)
        logs = ExportLogsPartialSuccess(rejected_log_records=answer.rejected, error_message=answer.message)
        return ExportLogsServiceResponse(partial_success=logs)


_COLLECTOR = "opentelemetry.proto.collector"
KINDS = (
    SignalKind("metrics", f"{_COLLECTOR}.metrics.v1.MetricsService", ExportMetricsServiceRequest),
    SignalKind("traces", f"{_COLLECTOR}.trace.v1.TraceService", ExportTraceServiceRequest),
    SignalKind("logs", f"{_COLLECTOR}.logs.v1.LogsService", ExportLogsServiceRequest),
)
_RESPONSES: dict[Signal, type[ExportResponse]] = {
    "metrics": ExportMetricsServiceResponse,
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
}


def signal_of(request: ExportRequest) -> Signal:
    """Return the signal of a request."""
    return next(kind.signal for kind in KINDS if isinstance(request, kind.request))

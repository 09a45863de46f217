"""The three signals of OTLP: paths, methods and message types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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

if TYPE_CHECKING:
    from poller.receiver.answers import CannedAnswer

Signal = Literal["metrics", "traces", "logs"]
SIGNALS: tuple[Signal, ...] = ("metrics", "traces", "logs")
Request = ExportMetricsServiceRequest | ExportTraceServiceRequest | ExportLogsServiceRequest
Response = ExportMetricsServiceResponse | ExportTraceServiceResponse | ExportLogsServiceResponse


@dataclass(frozen=True, slots=True)
class Kind:
    """One signal (OTLP specification 1.10, "OTLP/gRPC" and "OTLP/HTTP")."""

    signal: Signal
    service: str
    """Name of the gRPC service."""
    request: type[Request]

    @property
    def path(self) -> str:
        """Path of HTTP requests."""
        return f"/v1/{self.signal}"

    def response(self, answer: CannedAnswer) -> Response:
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
    Kind("metrics", f"{_COLLECTOR}.metrics.v1.MetricsService", ExportMetricsServiceRequest),
    Kind("traces", f"{_COLLECTOR}.trace.v1.TraceService", ExportTraceServiceRequest),
    Kind("logs", f"{_COLLECTOR}.logs.v1.LogsService", ExportLogsServiceRequest),
)
_RESPONSES: dict[Signal, type[Response]] = {
    "metrics": ExportMetricsServiceResponse,
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
}


def signal_of(request: Request) -> Signal:
    """Return the signal of a request."""
    return next(kind.signal for kind in KINDS if isinstance(request, kind.request))

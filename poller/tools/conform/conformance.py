"""Conformance check of a stream of OTLP requests against the catalogue."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from poller.events._catalog.declaration import Metric
from poller.model.diagnostics import Diagnostic
from poller.receiver.decode import ReceivedValue, points_of, records_of, spans_of
from poller.receiver.signals import ExportRequest
from poller.tools.conform.metrics import MetricCheck
from poller.tools.conform.signals import LogRecordCheck, SpanCheck

Require = Literal["implemented", "all", "none"]


class ConformanceCheck:
    """Conformance check of one server; thread-safe."""

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        units: bool = True,
        require: Require = "implemented",
        service: str | None = None,
        other_generations: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Store the catalogue.

        `require` selects the metrics that must be received: those `implemented` in the server's releases,
        `all` that a server can report, or `none`. If `service` is set, signals of other services are ignored.
        Without `units` a metric may have no unit. `other_generations` maps the metric names of these to them.
        """
        self._lock = threading.Lock()
        self._service = service
        self._required = [metric for metric in metrics if _required(metric, require)]
        self._metrics = MetricCheck(metrics, units=units, other_generations=other_generations)
        self._spans = SpanCheck()
        self._records = LogRecordCheck()
        self.requests = 0

    def take(self, request: ExportRequest) -> int:
        """Check one request; return the number of requests so far, including this one."""
        with self._lock:
            self.requests += 1
            if isinstance(request, ExportMetricsServiceRequest):
                for point in points_of(request):
                    if self._selects(point.resource):
                        self._metrics.add(point)
            elif isinstance(request, ExportLogsServiceRequest):
                for record in records_of(request):
                    if self._selects(record.resource):
                        self._records.add(record)
            else:
                for span in spans_of(request):
                    if self._selects(span.resource):
                        self._spans.add(span)
            return self.requests

    def diagnostics(self, ignored: Sequence[str] = ()) -> list[Diagnostic]:
        """Every difference and a summary per signal, in the order metrics, spans, log records.

        If a pattern in `ignored` (`*`, `?`, `[...]`) matches the check, the subject or `check:subject` of a
        difference, its finding is skipped. A pattern without a match is a warning.
        """
        with self._lock:
            if not self.requests:
                return [Diagnostic("error", "requests", "no request was received")]
            diagnostics: list[Diagnostic] = []
            used: set[str] = set()
            for differences, summary in (
                (self._metrics.differences(self._required), self._metrics.summary),
                (self._spans.differences(), self._spans.summary),
                (self._records.differences(), self._records.summary),
            ):
                reported = [_unless_ignored(difference, ignored, used) for difference in differences]
                diagnostics += [
                    *reported,
                    summary(sum(diagnostic.severity == "error" for diagnostic in reported)),
                ]
        return diagnostics + [
            Diagnostic("warning", "ignore", "matches no difference", "remove it", pattern)
            for pattern in ignored
            if pattern not in used
        ]

    def _selects(self, resource: Mapping[str, ReceivedValue]) -> bool:
        return self._service is None or resource.get("service.name") == self._service


def _required(metric: Metric, require: Require) -> bool:
    if require == "none" or metric.status == "polled":
        return False
    return require == "all" or metric.status == "implemented"


def _unless_ignored(diagnostic: Diagnostic, patterns: Sequence[str], used: set[str]) -> Diagnostic:
    """The diagnostic, with severity `skip` if a pattern matches; matching patterns are added to `used`."""
    names = (diagnostic.rule, diagnostic.subject or "", f"{diagnostic.rule}:{diagnostic.subject}")
    matching = {pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)}
    if not matching:
        return diagnostic
    used |= matching
    return replace(diagnostic, severity="skip", message=f"{diagnostic.message}; ignored", advice=None)

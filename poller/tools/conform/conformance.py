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
from poller.receiver.decode import Attribute, points_of, records_of, spans_of
from poller.receiver.signals import Request
from poller.tools.conform.metrics import Measured
from poller.tools.conform.signals import Records, Spans
from poller.tools.doctor.finding import Finding

Require = Literal["implemented", "all", "none"]


class Examination:
    """One look at a server; safe to feed from several threads."""

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        units: bool = True,
        require: Require = "implemented",
        service: str | None = None,
        elsewhere: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Know the catalogue.

        Metrics are missed where they are `implemented` in the server, or `all` that a server can tell. Only
        what comes from `service` is looked at, where one is named. Without `units` a metric may be sent with
        none. `elsewhere` names the generation of a name that is not in this one.
        """
        self._lock = threading.Lock()
        self._service = service
        self._required = [metric for metric in metrics if _required(metric, require)]
        self._measured = Measured(metrics, units=units, elsewhere=elsewhere)
        self._spans = Spans()
        self._records = Records()
        self.requests = 0

    def take(self, request: Request) -> int:
        """Look at one request; return how many there were, this one included."""
        with self._lock:
            self.requests += 1
            if isinstance(request, ExportMetricsServiceRequest):
                for point in points_of(request):
                    if self._wanted(point.resource):
                        self._measured.take(point)
            elif isinstance(request, ExportLogsServiceRequest):
                for record in records_of(request):
                    if self._wanted(record.resource):
                        self._records.take(record)
            else:
                for span in spans_of(request):
                    if self._wanted(span.resource):
                        self._spans.take(span)
            return self.requests

    def findings(self, ignored: Sequence[str] = ()) -> list[Finding]:
        """Every difference and what is well, in the order metrics, spans, log records.

        What matches a pattern of `ignored` (`*`, `?`, `[...]`) by its check, its subject or `check:subject`
        is skipped, and said to be; a pattern that matches nothing is a warning.
        """
        with self._lock:
            if not self.requests:
                return [Finding("requests", "fail", "nothing was received")]
            told: list[Finding] = []
            used: set[str] = set()
            for differences, summary in (
                (self._measured.differences(self._required), self._measured.summary),
                (self._spans.differences(), self._spans.summary),
                (self._records.differences(), self._records.summary),
            ):
                kept = [_unless_ignored(one, ignored, used) for one in differences]
                told += [*kept, summary(sum(one.state == "fail" for one in kept))]
        return told + [
            Finding("ignore", "warn", "matches nothing that differs", "leave it out", pattern)
            for pattern in ignored
            if pattern not in used
        ]

    def _wanted(self, resource: Mapping[str, Attribute]) -> bool:
        return self._service is None or resource.get("service.name") == self._service


def _required(metric: Metric, require: Require) -> bool:
    if require == "none" or metric.status == "polled":
        return False
    return require == "all" or metric.status == "implemented"


def _unless_ignored(finding: Finding, patterns: Sequence[str], used: set[str]) -> Finding:
    """The finding, skipped where a pattern matches; such patterns are added to `used`."""
    names = (finding.check, finding.subject or "", f"{finding.check}:{finding.subject}")
    matching = {pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)}
    if not matching:
        return finding
    used |= matching
    return replace(finding, state="skip", detail=f"{finding.detail}; ignored", advice=None)

"""Checks of spans and log records: personal data, structure and trace context."""

from __future__ import annotations

import re

from poller.model.diagnostics import Diagnostic
from poller.receiver.decode import LogRecord, Span
from poller.tools.conform.notes import Differences, summary
from poller.tools.conform.personal_data import ADVICE, PersonalDataCheck, personal_data, safe, texts
from poller.tools.conform.span_structure import check_structure

_TRACE_ID, _SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{32}"), re.compile(r"(?!0+$)[0-9a-f]{16}")
_MOST_SEVERE = 24
"""Highest SeverityNumber (logs data model)."""


class SpanCheck:
    """Check of spans."""

    def __init__(self) -> None:
        self._differences = Differences()
        self._personal_data = PersonalDataCheck(self._differences)
        self._count = 0
        self._has_root = False

    def add(self, span: Span) -> None:
        """Examine one span, its events and its links."""
        self._count += 1
        self._has_root = self._has_root or span.kind == "server"
        check = self._personal_data
        check.origin(span.resource, span.scope, span.scope_attributes)
        outgoing = span.kind in ("client", "producer")
        where = f"span {safe(span.name)}"
        if kind := personal_data(span.name):
            where = "a span's name"
            self._differences.add("personal_text", "span name", f"contains {kind}", advice=ADVICE)
        check.text("span status", span.status_message, where)
        check.trace_state(span.trace_state, where)
        check.attributes(span.attributes, where, outgoing=outgoing)
        for event in span.events:
            check.text("event name", event.name, where)
            check.attributes(event.attributes, f"{where}, event {safe(event.name)}", outgoing=outgoing)
        for link in span.links:
            check.trace_state(link.trace_state, f"{where}, a link")
            check.attributes(link.attributes, f"{where}, a link", outgoing=outgoing)
        check_structure(span, where, self._differences)

    def differences(self) -> list[Diagnostic]:
        """Every difference."""
        diagnostics = list(self._differences.diagnostics())
        if self._count and not self._has_root:
            message = "of kind server was not sent: each request has one"
            diagnostics.append(Diagnostic("warning", "missing_root", message, subject="root span"))
        return diagnostics

    def summary(self, wrong: int) -> Diagnostic:
        """Summary of the signal; `wrong` is the number of differences that count."""
        return summary("spans", self._count, f"{self._count} examined", wrong)


class LogRecordCheck:
    """Check of log records."""

    def __init__(self) -> None:
        self._differences = Differences()
        self._personal_data = PersonalDataCheck(self._differences)
        self._count = 0

    def add(self, record: LogRecord) -> None:
        """Examine one log record."""
        self._count += 1
        check = self._personal_data
        check.origin(record.resource, record.scope, record.scope_attributes)
        logger = safe(record.scope)[1:-1] if record.scope else "(no logger)"
        for text in texts(record.body):
            if kind := personal_data(text):
                message = f"contains {kind}"
                self._differences.add("personal_text", f"log body of {logger}", message, advice=ADVICE)
        for name, text in (("event name", record.event_name), ("severity text", record.severity_text)):
            check.text(name, text, f"log record of {logger}")
        check.attributes(record.attributes, f"log record of {logger}")
        if not 0 <= record.severity <= _MOST_SEVERE:
            message = f"is not from 0 to {_MOST_SEVERE}, on $"
            self._differences.add("impossible_value", "severity", message, f"log record of {logger}")
        if not _has_trace_context(record):
            self._differences.add(
                "no_trace_context",
                f"log records of {logger}",
                "have no trace_id and span_id",
                advice="log within a span, or ignore this logger if it only logs outside of spans",
            )

    def differences(self) -> list[Diagnostic]:
        """Every difference."""
        return list(self._differences.diagnostics())

    def summary(self, wrong: int) -> Diagnostic:
        """Summary of the signal; `wrong` is the number of differences that count."""
        return summary("log_records", self._count, f"{self._count} examined", wrong)


def _has_trace_context(record: LogRecord) -> bool:
    """Whether fields or attributes have both ids; the server sends them as attributes at v0.9.4."""
    trace_id = record.trace_id or record.attributes.get("trace_id")
    span_id = record.span_id or record.attributes.get("span_id")
    return bool(_TRACE_ID.fullmatch(str(trace_id)) and _SPAN_ID.fullmatch(str(span_id)))

"""Checks of spans and log records: personal data, structure and trace context."""

from __future__ import annotations

import re

from poller.receiver.decode import LogRecord, Span
from poller.tools.conform import span_structure as structure
from poller.tools.conform.notes import Notes, summary
from poller.tools.conform.personal_data import ADVICE, Places, gives_away, safe, texts
from poller.tools.doctor.finding import Finding

_TRACE_ID, _SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{32}"), re.compile(r"(?!0+$)[0-9a-f]{16}")
_MOST_SEVERE = 24
"""Of the logs data model, "SeverityNumber"."""


class Spans:
    """What the spans come to."""

    def __init__(self) -> None:
        self._notes = Notes()
        self._places = Places(self._notes)
        self._count = 0
        self._rooted = False

    def take(self, span: Span) -> None:
        """Examine one span, its events and its links."""
        self._count += 1
        self._rooted = self._rooted or span.kind == "server"
        places = self._places
        places.origin(span.resource, span.scope, span.scope_attributes)
        outgoing = span.kind in ("client", "producer")
        where = f"span {safe(span.name)}"
        if what := gives_away(span.name):
            where = "a span's name"
            self._notes.add("personal_text", "span name", f"holds {what}", advice=ADVICE)
        places.text("span status", span.status_message, where)
        places.trace_state(span.trace_state, where)
        places.attributes(span.attributes, where, outgoing=outgoing)
        for event in span.events:
            places.text("event name", event.name, where)
            places.attributes(event.attributes, f"{where}, event {safe(event.name)}", outgoing=outgoing)
        for link in span.links:
            places.trace_state(link.trace_state, f"{where}, a link")
            places.attributes(link.attributes, f"{where}, a link", outgoing=outgoing)
        for flaw in structure.flaws(span):
            self._notes.add(
                flaw.check, flaw.subject, flaw.message, where, advice=flaw.advice, state=flaw.state
            )

    def differences(self) -> list[Finding]:
        """What differs."""
        found = list(self._notes.findings())
        if self._count and not self._rooted:
            what = "of kind server was not sent: each request has one"
            found.append(Finding("missing_root", "warn", what, subject="root span"))
        return found

    def summary(self, wrong: int) -> Finding:
        """One line for all of it; `wrong` is how many differences count."""
        return summary("spans", self._count, f"{self._count} looked at", wrong)


class Records:
    """What the log records come to."""

    def __init__(self) -> None:
        self._notes = Notes()
        self._places = Places(self._notes)
        self._count = 0

    def take(self, record: LogRecord) -> None:
        """Examine one log record."""
        self._count += 1
        places = self._places
        places.origin(record.resource, record.scope, record.scope_attributes)
        logger = safe(record.scope)[1:-1] if record.scope else "(no logger)"
        for text in texts(record.body):
            if what := gives_away(text):
                self._notes.add("personal_text", f"log body of {logger}", f"holds {what}", advice=ADVICE)
        for name, text in (("event name", record.event_name), ("severity text", record.severity_text)):
            places.text(name, text, f"log record of {logger}")
        places.attributes(record.attributes, f"log record of {logger}")
        if not 0 <= record.severity <= _MOST_SEVERE:
            what = f"is above {_MOST_SEVERE}, on $"
            self._notes.add("impossible_value", "severity", what, f"log record of {logger}")
        if not _in_a_trace(record):
            self._notes.add(
                "no_trace_context",
                f"log records of {logger}",
                "have no trace_id and span_id",
                advice="log within a span, or ignore this logger where it only speaks outside of any",
            )

    def differences(self) -> list[Finding]:
        """What differs."""
        return list(self._notes.findings())

    def summary(self, wrong: int) -> Finding:
        """One line for all of it; `wrong` is how many differences count."""
        return summary("log_records", self._count, f"{self._count} looked at", wrong)


def _in_a_trace(record: LogRecord) -> bool:
    """By the record's own fields, or by attributes of those names, as the server sends them at v0.9.4."""
    trace_id = record.trace_id or record.attributes.get("trace_id")
    span_id = record.span_id or record.attributes.get("span_id")
    return bool(_TRACE_ID.fullmatch(str(trace_id)) and _SPAN_ID.fullmatch(str(span_id)))

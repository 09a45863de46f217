"""Look through spans and log records for what gives clients away, and for records without trace context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from poller.checkup.finding import Finding
from poller.conform.notes import Notes, summary
from poller.events.pii import OWN, PEER, personal_name, personal_text
from poller.receiver.attributes import Attribute
from poller.receiver.records import LogRecord
from poller.receiver.spans import Span
from poller.words import shown

_ADVICE = "keep it out of what leaves the process (design document 005, section 4.1)"
_TRACE_ID, _SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{32}"), re.compile(r"(?!0+$)[0-9a-f]{16}")


class Spans:
    """What the spans come to."""

    def __init__(self) -> None:
        self._notes = Notes()
        self._count = 0

    def take(self, span: Span) -> None:
        """Look at one span, its events and its links."""
        self._count += 1
        outgoing = span.kind in ("client", "producer")
        where = f"span {shown(span.name)}"
        if what := personal_text(span.name):
            where = "a span's name"
            self._notes.add("personal_text", "span name", f"holds {what}", advice=_ADVICE)
        if what := personal_text(span.status_message):
            self._notes.add("personal_text", "span status", f"holds {what}, on $", where, advice=_ADVICE)
        _attributes(self._notes, span.attributes, where, outgoing=outgoing)
        for event in span.events:
            _attributes(
                self._notes, event.attributes, f"{where}, event {shown(event.name)}", outgoing=outgoing
            )
        for link in span.links:
            _attributes(self._notes, link, f"{where}, a link", outgoing=outgoing)

    def differences(self) -> list[Finding]:
        """What differs."""
        return list(self._notes.findings())

    def summary(self, wrong: int) -> Finding:
        """One line for all of it; `wrong` is how many differences count."""
        return summary("spans", self._count, f"{self._count} looked at", wrong)


class Records:
    """What the log records come to."""

    def __init__(self) -> None:
        self._notes = Notes()
        self._count = 0

    def take(self, record: LogRecord) -> None:
        """Look at one log record."""
        self._count += 1
        logger = record.scope or "(no logger)"
        for text in _texts(record.body):
            if what := personal_text(text):
                self._notes.add("personal_text", f"log body of {logger}", f"holds {what}", advice=_ADVICE)
        _attributes(self._notes, record.attributes, f"log record of {logger}", outgoing=False)
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


def _attributes(notes: Notes, attributes: Mapping[str, Attribute], where: str, *, outgoing: bool) -> None:
    for name, value in attributes.items():
        if personal_name(name, outgoing=outgoing):
            notes.add(
                "personal_attribute", name, "tells who or where a client is, on $", where, advice=_ADVICE
            )
            continue
        addresses = name not in OWN and not (outgoing and name in PEER)
        for text in _texts(value):
            if what := personal_text(text, addresses=addresses):
                notes.add("personal_text", name, f"holds {what}, on $", where, advice=_ADVICE)
                break


def _texts(value: Attribute) -> Iterator[str]:
    """Every text within a value, names of a mapping's items with their values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            # As one text, for `authorization: ...` says what it is only together.
            yield from (f"{name}: {text}" for text in _texts(item))


def _in_a_trace(record: LogRecord) -> bool:
    """By the record's own fields, or by attributes of those names, as the server sends them at v0.9.4."""
    trace_id = record.trace_id or record.attributes.get("trace_id")
    span_id = record.span_id or record.attributes.get("span_id")
    return bool(_TRACE_ID.fullmatch(str(trace_id)) and _SPAN_ID.fullmatch(str(span_id)))

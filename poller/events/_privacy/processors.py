"""Tracer and logger providers that scrub every span and log record before any processor.

It imports the SDK, so no module imports it before telemetry is configured.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceState

from poller.events._privacy.attributes import is_harmless, scrub_attributes, scrub_value
from poller.events._privacy.patterns import scrub
from poller.events._privacy.texts import REDACTED, well_formed

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

_CALLING = frozenset({SpanKind.CLIENT, SpanKind.PRODUCER})


class ScrubbedTracerProvider(TracerProvider):
    """Tracer provider that scrubs every span before any processor that is added to it."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor."""
        super().add_span_processor(_ScrubbedSpans(span_processor))


class _ScrubbedSpans(SpanProcessor):
    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._inner.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        self._inner._on_ending(span)  # noqa: SLF001 - part of the interface, so far under this name

    def on_end(self, span: ReadableSpan) -> None:
        try:
            scrubbed = scrub_span(span)
        except Exception:  # the request must not fail, and the raw span must not leave the process
            logger.exception("a span could not be scrubbed and is not exported")
            return
        self._inner.on_end(scrubbed)

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def scrub_span(span: ReadableSpan) -> ReadableSpan:
    """Return a scrubbed copy of the span, or the span itself if it contains nothing to scrub."""
    outgoing = span.kind in _CALLING
    original = (span.attributes or {}).copy()  # type: ignore[attr-defined]  # a read-only view
    if (
        not (span.events or span.links or span.status.description)
        and _scrub_context(span.context) is span.context
        and _scrub_context(span.parent) is span.parent
        and _scrub_name(span) == span.name
        and is_harmless(original, outgoing=outgoing)
    ):
        return span
    attributes = scrub_attributes({**original, **_database_state(span)}, outgoing=outgoing)
    events = [Event(scrub(event.name), _scrubbed(event.attributes), event.timestamp) for event in span.events]
    links = [Link(_scrub_context(link.context), _scrubbed(link.attributes)) for link in span.links]
    return ReadableSpan(
        name=_scrub_name(span),
        context=_scrub_context(span.context),
        parent=_scrub_context(span.parent),
        resource=span.resource,
        attributes=_bounded(attributes, span.dropped_attributes),
        events=_counted(events, span.dropped_events),
        links=_counted(links, span.dropped_links),
        kind=span.kind,
        status=Status(span.status.status_code, scrub(span.status.description or "") or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _scrub_name(span: ReadableSpan) -> str:
    """Return the scrubbed name; a route template at its end (`POST /v1/token:refresh`) is kept."""
    route = (span.attributes or {}).get("http.route")
    if isinstance(route, str) and route and span.name.endswith(f" {route}"):
        return scrub(span.name.removesuffix(route)) + well_formed(route)
    return scrub(span.name)


def _database_state(span: ReadableSpan) -> dict[str, str]:
    """Return the SQLSTATE of a database client's failed span, which the instrumentations do not record.

    Semantic conventions 1.44, database/postgresql.md: it is `db.response.status_code` and also `error.type`.
    """
    if span.kind is not SpanKind.CLIENT or not span.events:
        return {}
    for event in span.events:
        module, _, name = str((event.attributes or {}).get("exception.type", "")).rpartition(".")
        state = getattr(getattr(sys.modules.get(module), name, None), "sqlstate", None)
        if isinstance(state, str):
            return {"db.response.status_code": state, "error.type": state}
    return {}


def _scrub_context(context: SpanContext | None) -> Any:
    """Remove entries that identify a client from tracestate, which clients send and spans export."""
    if context is None or not context.trace_state:
        return context
    entries = [(key, value) for key, value in context.trace_state.items() if _is_harmless_entry(key, value)]
    if len(entries) == len(context.trace_state):
        return context
    return SpanContext(
        context.trace_id, context.span_id, context.is_remote, context.trace_flags, TraceState(entries)
    )


def _is_harmless_entry(key: str, value: str) -> bool:
    """Return whether neither the value of an entry nor the entry itself (`token=...`) needs scrubbing."""
    entry = f"{key}={value}"
    return scrub(value) == value and scrub(entry) == entry


def _scrubbed(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return scrub_attributes(attributes or {})


def _bounded(attributes: Mapping[str, Any], dropped: int) -> Mapping[str, Any]:
    if not dropped:
        return attributes
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped = dropped
    return bounded


def _counted(items: Sequence[Item], dropped: int) -> Sequence[Item]:
    if not dropped:
        return items
    counted = BoundedList.from_seq(None, items)
    counted.dropped = dropped
    return counted


class ScrubbedLoggerProvider(LoggerProvider):
    """Logger provider that scrubs every log record before any processor that is added to it."""

    def add_log_record_processor(self, log_record_processor: LogRecordProcessor) -> None:
        """Add a processor."""
        super().add_log_record_processor(_ScrubbedLogs(log_record_processor))


class _ScrubbedLogs(LogRecordProcessor):
    def __init__(self, inner: LogRecordProcessor) -> None:
        self._inner = inner

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = log_record.log_record
        try:
            record.body = scrub_value(record.body)
            record.attributes = scrub_attributes(record.attributes or {})
        except Exception:  # noqa: BLE001 - logging it would recurse
            record.body, record.attributes = REDACTED, {}
        self._inner.on_emit(log_record)

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)

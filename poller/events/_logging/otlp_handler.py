"""Log handler that exports records over OTLP."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from poller.events._asgi.errors import error_type
from poller.events._logging import records
from poller.events._privacy.patterns import scrub
from poller.events._privacy.texts import well_formed
from poller.model.printable import text_of

_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL, "FATAL"),
    (logging.ERROR, SeverityNumber.ERROR, "ERROR"),
    (logging.WARNING, SeverityNumber.WARN, "WARN"),
    (logging.INFO, SeverityNumber.INFO, "INFO"),
    (logging.DEBUG, SeverityNumber.DEBUG, "DEBUG"),
    (logging.NOTSET, SeverityNumber.TRACE, "TRACE"),
)
"""Lowest level of each severity (OpenTelemetry specification, logs/data-model.md, "Severity")."""
_OWN = ("opentelemetry", "poller.events._export.delivery", "grpc", "urllib3")
"""Loggers of the export itself; exporting their records would cause an endless loop."""


class Bridge(logging.Handler):
    """Emits each record through the OpenTelemetry logger of the same name.

    The SDK's own handler is deprecated, and the handler of the instrumentation package ignores the span of a
    request that has ended.
    """

    _emitting: ContextVar[bool] = ContextVar("emitting", default=False)

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name given by `logging`
        """Report a failed write without the record's arguments."""
        records.report_failure(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Emit the record; records that the SDK logs during the call are dropped."""
        if record.name.startswith(_OWN) or self._emitting.get():
            return
        token = self._emitting.set(True)
        try:
            self._provider.get_logger(well_formed(record.name)).emit(_translated(record))
        except Exception:  # noqa: BLE001 - as in every handler
            self.handleError(record)
        finally:
            self._emitting.reset(token)


def _translated(record: logging.LogRecord) -> LogRecord:
    _, number, text = next(severity for severity in _SEVERITIES if record.levelno >= severity[0])
    attributes = {
        name: value if isinstance(value, str | bool | int | float) else scrub(text_of(value))
        for name, value in records.extras(record).items()
        if value is not None
    }
    if record.exc_info and (error := record.exc_info[1]) is not None:
        attributes["exception.type"] = error_type(error)
        attributes["exception.message"] = scrub(text_of(error))
        attributes["exception.stacktrace"] = records.traceback_of(record.exc_info)
    place = records.place_of(record)
    if place and place.request_id:
        attributes.setdefault("request.id", place.request_id)
    return LogRecord(
        timestamp=int(record.created * 1e9),
        context=set_span_in_context(NonRecordingSpan(place.span), Context()) if place else None,
        severity_number=number,
        severity_text=text,
        body=records.message_of(record).rstrip("\n"),
        attributes=attributes,
    )

"""OTLP export of the poller's own log records."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.redaction import redact_beginning
from poller.otlp.signal_exporter import SignalExport
from poller.telemetry.logging import exception_of, extras_of, message_of

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    from poller.model.otlp_endpoint import Endpoint

_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
    (logging.DEBUG, SeverityNumber.DEBUG),
)
"""OpenTelemetry specification, logs/data-model.md, "Mapping of SeverityNumber"."""


class LogRecords:
    """A handler for the root logger, and the export of its records, every few seconds and at the end.

    The standard OTEL_BLRP_* variables set the interval and the number of records per export.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        resource: Resource,
        timeout: float,
        *,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Start to export every record that is written to stderr; `timeout` bounds one request, in seconds.

        `meter_provider` receives the SDK's own metrics of its processor, if
        OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED enables them. Raises ConfigError if a standard
        OTEL_EXPORTER_OTLP_* or OTEL_BLRP_* variable cannot be used, or if the package for HTTP is missing.
        """
        self._export = SignalExport("logs", endpoint, timeout)
        self.delivery = self._export.delivery
        try:
            processor = BatchLogRecordProcessor(_LogExporter(self._export), meter_provider=meter_provider)
        except ValueError as error:
            raise ConfigError([invalid("OTEL_BLRP_*", str(error))]) from None
        self._provider = LoggerProvider(resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(processor)
        self._handler = Handler(self._provider)
        logging.getLogger().addHandler(self._handler)

    def shutdown(self, timeout: float) -> None:
        """Send the queue and end, within `timeout` seconds even if the collector hangs."""
        logging.getLogger().removeHandler(self._handler)
        self._export.shutdown(self._provider.shutdown, timeout)


_ABOUT_EXPORT = re.compile(r"(opentelemetry|grpc|urllib3|poller\.delivery\.logs)(\.|$)")
"""Loggers of the log export itself; exporting their records would cause further records without end."""
_DEEPEST = 10
"""Maximum depth of a nested value that is exported."""


class Handler(logging.Handler):
    """A handler that passes each record to OpenTelemetry: secrets masked, with the ids of the span.

    Records about the export of log records only go to stderr.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        if _ABOUT_EXPORT.match(record.name):
            return
        # The handler for stderr has already reported a record that cannot be formatted.
        with contextlib.suppress(Exception):
            self._provider.get_logger(record.name).emit(_otel_record(record))


class _LogExporter(LogRecordExporter):
    def __init__(self, export: SignalExport) -> None:
        self._export = export

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        queued = self._export.export(encode_logs, batch)
        return LogRecordExportResult.SUCCESS if queued else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Do nothing, because the delivery holds the queue."""
        del timeout_millis
        return True

    def shutdown(self) -> None:
        """Do nothing, because `LogRecords.shutdown` ends the delivery."""


def _otel_record(record: logging.LogRecord) -> LogRecord:
    attributes = {name: _value(value) for name, value in extras_of(record).items() if value is not None}
    if record.exc_info and record.exc_info[0]:
        attributes["exception.type"] = record.exc_info[0].__qualname__
        attributes["exception.message"] = _text(redact_beginning(str(record.exc_info[1])))
    if stacktrace := exception_of(record):
        attributes["exception.stacktrace"] = _text(stacktrace)
    severity = next(
        (number for level, number in _SEVERITIES if record.levelno >= level), SeverityNumber.TRACE
    )
    return LogRecord(
        timestamp=round(record.created * 1e9),
        context=get_current(),
        severity_number=severity,
        severity_text=record.levelname,
        body=_text(message_of(record)),
        attributes=attributes,
    )


def _value(value: Any, depth: int = 0) -> Any:
    """Convert a value to a type that OTLP can carry; any other type would lose the whole batch."""
    if depth > _DEEPEST:
        return "..."  # the value may contain itself
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case Mapping():
            return {_text(str(key)): _value(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_value(inner, depth + 1) for inner in value]
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    """Return the text with lone surrogates replaced, because UTF-8 cannot encode them."""
    return text.encode(errors="replace").decode()

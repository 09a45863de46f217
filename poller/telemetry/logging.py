"""Log configuration: records on stderr as text or JSON, with trace_id and span_id."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from poller.model.printable import indented, one_line
from poller.model.redaction import learn_environment, redact_all, redact_beginning
from poller.terminal.stdio import unguarded

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of every record; all other attributes are `extra` fields of the caller."""

_PLAIN = logging.Formatter()

_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": "\x1b[2m"}
_OFF = "\x1b[0m"


def configure(
    form: Literal["text", "json"] = "text", level: str = "info", stream: TextIO | None = None
) -> None:
    """Write the records of the whole process from `level` on to `stream` (stderr), one line each.

    In the text form a traceback follows in indented lines, so that none of them looks like a record.

    Replaces any earlier configuration. Records of libraries are written from WARNING on. Records and the
    tracebacks of uncaught errors show no secret that `poller.model.redaction` knows; these include the
    secrets in this process's environment. A text longer than `LONGEST_BEGINNING` characters is truncated.
    """
    learn_environment(os.environ)
    if stream is None:
        stream = unguarded(sys.stderr)  # the formatters escape the text themselves
        sys.excepthook = _ended
        threading.excepthook = lambda of: _ended(of.exc_type, of.exc_value, of.exc_traceback)
        sys.unraisablehook = lambda of: _ended(of.exc_type, of.exc_value, of.exc_traceback)
    handler = _StreamHandler(stream)
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(coloured=coloured))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # At INFO the scheduler logs every run of every job; at DEBUG the HTTP client logs every request.
    quiet = max(logging.WARNING, root.level)
    for library in ("apscheduler", "opentelemetry", "urllib3", "asyncio", "psycopg", "grpc"):
        logging.getLogger(library).setLevel(quiet)
    # The daemon logs (and counts) skipped runs itself, with the names of the ticks.
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)


class _StreamHandler(logging.StreamHandler[TextIO]):
    """Writes records to a stream."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of `logging`
        """Report the failure without the record's arguments, which Python's own report shows in clear."""
        kind = sys.exc_info()[0]
        problem = kind.__name__ if kind else "unknown error"
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(
                one_line(f"a record of logger {record.name} could not be written: {problem}") + "\n"
            )


class JsonFormatter(logging.Formatter):
    """One JSON object per line: timestamp, severity, logger, message, trace_id, span_id and all extra fields.

    The trace fields have OpenTelemetry's names for logs outside OTLP (specification,
    compatibility/logging_trace_context.md). Outside a span they are empty, so that every line has them.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "severity": record.levelname,
            "logger": record.name,
            "message": message_of(record),
            **_trace(),
        }
        if exception := exception_of(record):
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = redact_beginning(record.stack_info)
        for name, value in extras_of(record).items():
            line[f"{name}_" if name in line else name] = _finite(value)
        return one_line(json.dumps(line, ensure_ascii=False, default=str))


class TextFormatter(logging.Formatter):
    """Time, severity, logger, message and all extra fields as key=value; an indented traceback follows."""

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname:<7}"
        if self._coloured and (colour := _COLOURS.get(record.levelname)):
            level = f"{colour}{level}{_OFF}"
        trace = {name: value for name, value in _trace().items() if value}
        fields = [f"{name}={_quoted(value)}" for name, value in {**extras_of(record), **trace}.items()]
        # A server's message may have several lines, but grep and journald need a record on one line.
        output = one_line(" ".join([f"{record.name}:", message_of(record), *fields]))
        below = [exception_of(record), redact_beginning(record.stack_info or "")]
        return f"{_timestamp(record)} {level} {output}" + "".join(map(indented, filter(None, below)))


def _ended(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log an uncaught error, which Python would print otherwise."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit) and error is not None:
        logging.getLogger("poller").critical("defect", exc_info=(kind, error, traceback))


def message_of(record: logging.LogRecord) -> str:
    """Return the message with secrets masked; without its arguments if they do not fit the format."""
    try:
        return redact_beginning(record.getMessage())
    except (TypeError, ValueError, KeyError) as error:
        return redact_beginning(f"{record.msg} (its arguments do not fit: {type(error).__name__})")


def _timestamp(record: logging.LogRecord) -> str:
    """Return the record's time by RFC 3339: UTC, with milliseconds."""
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def exception_of(record: logging.LogRecord) -> str:
    """Return the traceback of a record with secrets masked; empty if it has none."""
    traceback_text = _PLAIN.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
    return redact_beginning(traceback_text)


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the `extra` fields of a record with secrets masked."""
    return redact_all({name: value for name, value in vars(record).items() if name not in _STANDARD})


def _trace() -> dict[str, str]:
    # Without the tracing API in memory there is no span, and logging alone must not import it.
    api = sys.modules.get("opentelemetry.trace")
    context = api.get_current_span().get_span_context() if api and hasattr(api, "get_current_span") else None
    if context is None or not context.is_valid:
        return {"trace_id": "", "span_id": ""}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _quoted(value: object) -> str:
    text = str(value)
    plain = text != "" and text.isprintable() and not any(character in text for character in " \"'=\\")
    return text if plain else json.dumps(text, ensure_ascii=False)

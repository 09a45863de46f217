"""Log configuration: records on stderr as text or JSON, with trace_id and span_id."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from poller.model.log_format import JsonFormatter, LogFormat, RecordReader, TextFormatter, extra_fields
from poller.model.printable import one_line, text_of
from poller.model.redaction import learn_environment, redact_all, redact_beginning
from poller.terminal.stdio import unguarded

_PLAIN = logging.Formatter()
_TARGET: ContextVar[str] = ContextVar("target", default="")


def configure(form: LogFormat = "text", level: str = "info", stream: TextIO | None = None) -> None:
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
    handler.setFormatter(
        JsonFormatter(READER) if form == "json" else TextFormatter(READER, coloured=coloured)
    )
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


def _ended(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log an uncaught error, which Python would print otherwise."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit) and error is not None:
        logging.getLogger("poller").critical("defect", exc_info=(kind, error, traceback))


def message_of(record: logging.LogRecord) -> str:
    """Return the message with secrets masked; without its arguments if they do not fit the format."""
    try:
        return redact_beginning(record.getMessage())
    except Exception as error:  # noqa: BLE001 - a foreign __str__ or __repr__ may raise anything
        return redact_beginning(f"{text_of(record.msg)} (its arguments do not fit: {type(error).__name__})")


def exception_of(record: logging.LogRecord) -> str:
    """Return the traceback of a record with secrets masked; empty if it has none."""
    traceback_text = _PLAIN.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
    return redact_beginning(traceback_text)


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the `extra` fields of a record and the target that it is about, with secrets masked."""
    target = _TARGET.get()  # a handler runs in the context of the caller
    return redact_all(({"target": target} if target else {}) | extra_fields(record))


@contextlib.contextmanager
def about(target: str) -> Iterator[None]:
    """Add the name of a target to the log records of the block; empty: add nothing."""
    token = _TARGET.set(target)
    try:
        yield
    finally:
        _TARGET.reset(token)


def _trace(record: logging.LogRecord) -> dict[str, str]:
    del record  # a handler runs in the context of the caller
    # Without the tracing API in memory there is no span, and logging alone must not import it.
    api = sys.modules.get("opentelemetry.trace")
    context = api.get_current_span().get_span_context() if api and hasattr(api, "get_current_span") else None
    if context is None or not context.is_valid:
        return {"trace_id": "", "span_id": ""}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


READER = RecordReader(
    message_of, exception_of, extras_of, _trace, lambda value: redact_beginning(text_of(value))
)
"""Reader of the parts of a record with secrets masked."""

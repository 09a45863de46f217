"""Log formatters and handler for stderr: one JSON or text line per record, with trace_id and span_id."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, TextIO

from poller.events._logging import records
from poller.events._privacy.patterns import scrub
from poller.model.log_format import JsonFormatter, LogFormat, RecordReader, TextFormatter
from poller.model.printable import text_of

_QUIET = ("opentelemetry", "urllib3", "asyncio", "grpc", "httpx", "httpcore", "websockets", "botocore")
"""Libraries that log from WARNING on only, because some of them log every request at INFO."""


def configure(form: LogFormat = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Write every record from `level` on to `stream` (default: stderr), one line each; repeatable.

    Loggers that write to the terminal through their own handlers (uvicorn's and gunicorn's do) write here
    instead, even after a later `logging.config.dictConfig`. Handlers with another destination stay; they get
    records without personal data and secrets.

    Raises KeyError if `level` is unknown.
    """
    records.install()
    threshold = logging.getLevelNamesMapping()[level.upper()]
    _HANDLERS["console"] = _LogConsole(stream, form, threshold)
    if not issubclass(logging.config.dictConfigClass, _Adopting):
        logging.config.dictConfigClass = _Adopting
    _adopt()
    for library in _QUIET:
        logging.getLogger(library).setLevel(max(logging.WARNING, threshold))
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = lambda of: _uncaught(of.exc_type, of.exc_value, of.exc_traceback)


def send_also(handler: logging.Handler | None) -> None:
    """Send every record to `handler` as well, which must scrub it; None removes the handler."""
    if before := _HANDLERS.pop("collector", None):
        logging.getLogger().removeHandler(before)
    if handler is not None:
        _HANDLERS["collector"] = handler
    _adopt()


class _LogConsole(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO | None, form: LogFormat, threshold: int) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter(READER) if form == "json" else TextFormatter(READER))
        self.threshold = threshold

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name given by `logging`
        """Report a failed write without the record's arguments."""
        records.report_failure(record)


_HANDLERS: dict[Literal["console", "collector"], logging.Handler] = {}
"""The handlers that receive every record."""


class _Adopting(logging.config.DictConfigurator):
    """Replacement for the class that `logging.config.dictConfig` uses, which is a documented hook."""

    def configure(self) -> None:
        super().configure()
        _adopt()


def _adopt() -> None:
    """Replace every handler that writes to the terminal; add a scrubber to all other handlers."""
    console = _HANDLERS.get("console")
    if not isinstance(console, _LogConsole):
        return
    handlers = list(_HANDLERS.values())
    root = logging.getLogger()
    root.setLevel(console.threshold)
    for logger in _loggers():
        for handler in list(logger.handlers):
            if handler in handlers:
                continue
            if isinstance(handler, _LogConsole) or _is_terminal(handler):
                logger.removeHandler(handler)
                logger.propagate = True
            elif not any(isinstance(item, records.Scrubber) for item in handler.filters):
                handler.addFilter(records.Scrubber())
                if type(handler).handleError is logging.Handler.handleError:
                    setattr(handler, "handleError", records.report_failure)  # noqa: B010 - this handler only
    for handler in handlers:
        root.addHandler(handler)  # has no effect if the handler is already present


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _is_terminal(handler: logging.Handler) -> bool:
    if isinstance(handler, logging.handlers.QueueHandler):
        # Litestar's default: a thread reads the queue and writes to the terminal.
        targets = getattr(getattr(handler, "listener", None), "handlers", ())
        return bool(targets) and all(map(_is_terminal, targets))
    if hasattr(handler, "console"):  # rich
        return True
    stream = getattr(handler, "stream", None)
    if isinstance(handler, logging.FileHandler) or stream is None:
        return False
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    try:
        return stream.fileno() in (1, 2)
    except (AttributeError, OSError, ValueError):
        return False


def _uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    """Log an uncaught exception, which Python would otherwise print."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit) and error is not None:
        logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, error, traceback))


def _unraisable(of: sys.UnraisableHookArgs) -> None:
    """Log an exception that Python could only print: in `__del__`, a callback or a weak reference."""
    # Use the name only: the object is being destroyed, and its repr may contain personal data.
    where = getattr(of.object, "__qualname__", type(of.object).__name__)
    if of.exc_value is None:
        return
    logging.getLogger(__name__).error(
        "%s in %s",
        of.err_msg or "exception ignored",
        where,
        exc_info=(of.exc_type, of.exc_value, of.exc_traceback),
    )


def _exception(record: logging.LogRecord) -> str:
    return records.traceback_of(record.exc_info) if record.exc_info else scrub(record.exc_text or "")


def _trace(record: logging.LogRecord) -> dict[str, str]:
    place = records.place_of(record)
    if place is None:
        return {"trace_id": "", "span_id": ""}
    fields = {"trace_id": f"{place.span.trace_id:032x}", "span_id": f"{place.span.span_id:016x}"}
    return fields | ({"request.id": place.request_id} if place.request_id else {})


def _to_text(value: object) -> str:
    return scrub(text_of(value))


READER = RecordReader(records.message_of, _exception, records.extras, _trace, _to_text)
"""Reader of the parts of a record without personal data and secrets."""

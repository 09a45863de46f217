"""Log formatters and handler for stderr: one JSON or text line per record, with trace_id and span_id."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from poller.events._logging import records
from poller.events._privacy.patterns import scrub, text_of
from poller.model.printable import indented, one_line

Form = Literal["text", "json"]

_QUIET = ("opentelemetry", "urllib3", "asyncio", "grpc", "httpx", "httpcore", "websockets", "botocore")
"""Libraries that are heard from WARNING on: at INFO some tell every request."""


def configure(form: Form = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send every record from `level` on to `stream` (stderr), one line each; may be called again.

    What the process's loggers write to the terminal by handlers of their own (uvicorn's and gunicorn's do)
    comes here instead, also after a later `logging.config.dictConfig`. Handlers that write elsewhere stay,
    and get records without what must not be logged.
    """
    records.install()
    threshold = logging.getLevelNamesMapping()[level.upper()]
    _OURS["console"] = _Console(stream, form, threshold)
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
    """Give every record to `handler` as well, which scrubs by itself; None ends that."""
    if before := _OURS.pop("collector", None):
        logging.getLogger().removeHandler(before)
    if handler is not None:
        _OURS["collector"] = handler
    _adopt()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp, severity, logger, message, trace_id, span_id, every extra field.

    A line of a request has `request.id` as well.

    The names of the trace fields are OpenTelemetry's for logs outside OTLP (specification,
    compatibility/logging_trace_context.md). Outside of a span they are empty, so that each line has them.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "severity": record.levelname,
            "logger": record.name,
            "message": records.message_of(record).rstrip("\n"),
            **_trace(record),
        }
        if exception := _exception(record):
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = scrub(record.stack_info)
        for name, value in records.extras(record).items():
            line[f"{name}_" if name in line else name] = value
        try:
            text = json.dumps(line, ensure_ascii=False, default=_spoken, allow_nan=False)
        except (TypeError, ValueError):  # a key that is no text, a number that JSON does not have
            text = json.dumps({name: _spoken(value) for name, value in line.items()}, ensure_ascii=False)
        return one_line(text)


class TextFormatter(logging.Formatter):
    """Time, severity, logger, message, then every extra field as key=value; a traceback is indented below."""

    def format(self, record: logging.LogRecord) -> str:
        message = records.message_of(record).rstrip("\n")
        trace = {name: value for name, value in _trace(record).items() if value}
        fields = [f"{name}={_quoted(value)}" for name, value in {**records.extras(record), **trace}.items()]
        line = " ".join([_timestamp(record), f"{record.levelname:<7}", f"{record.name}:", message, *fields])
        below = [_exception(record), scrub(record.stack_info or "")]
        # A record has one line, or grep takes it apart; a traceback's lines are indented, so that none looks
        # like a record.
        return one_line(line) + "".join(map(indented, filter(None, below)))


class _Console(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO | None, form: Form, threshold: int) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
        self.threshold = threshold

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of `logging`
        """Report the failure without the record's arguments."""
        records.report_failure(record)


_OURS: dict[Literal["console", "collector"], logging.Handler] = {}
"""The handlers that every record is to reach."""


class _Adopting(logging.config.DictConfigurator):
    """What `logging.config.dictConfig` runs; the standard library lets it be replaced."""

    def configure(self) -> None:
        super().configure()
        _adopt()


def _adopt() -> None:
    """Take the place of every handler that writes to the terminal, and scrub before all others."""
    console = _OURS.get("console")
    if not isinstance(console, _Console):
        return
    ours = list(_OURS.values())
    root = logging.getLogger()
    root.setLevel(console.threshold)
    for logger in _loggers():
        for handler in list(logger.handlers):
            if handler in ours:
                continue
            if isinstance(handler, _Console) or _is_terminal(handler):
                logger.removeHandler(handler)
                logger.propagate = True
            elif not any(isinstance(one, records.Scrubber) for one in handler.filters):
                handler.addFilter(records.Scrubber())
                if type(handler).handleError is logging.Handler.handleError:
                    setattr(handler, "handleError", records.report_failure)  # noqa: B010 - of this handler only
    for handler in ours:
        root.addHandler(handler)  # once, however often


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _is_terminal(handler: logging.Handler) -> bool:
    if isinstance(handler, logging.handlers.QueueHandler):
        # Litestar's default: a thread behind a queue writes to the terminal.
        behind = getattr(getattr(handler, "listener", None), "handlers", ())
        return bool(behind) and all(map(_is_terminal, behind))
    if hasattr(handler, "console"):  # rich's
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
    """Log what nothing has caught, where Python would print it."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit) and error is not None:
        logging.getLogger(__name__).critical("nothing caught this", exc_info=(kind, error, traceback))


def _unraisable(of: sys.UnraisableHookArgs) -> None:
    """Log an exception that Python can only print: of a `__del__`, a callback or a weak reference."""
    # The object is about to go, and its repr may hold anything.
    where = getattr(of.object, "__qualname__", type(of.object).__name__)
    if of.exc_value is None:
        return
    logging.getLogger(__name__).error(
        "%s in %s",
        of.err_msg or "exception ignored",
        where,
        exc_info=(of.exc_type, of.exc_value, of.exc_traceback),
    )


def _timestamp(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _exception(record: logging.LogRecord) -> str:
    return records.traceback_of(record.exc_info) if record.exc_info else scrub(record.exc_text or "")


def _trace(record: logging.LogRecord) -> dict[str, str]:
    place = records.place_of(record)
    if place is None:
        return {"trace_id": "", "span_id": ""}
    found = {"trace_id": f"{place.span.trace_id:032x}", "span_id": f"{place.span.span_id:016x}"}
    return found | ({"request.id": place.request_id} if place.request_id else {})


def _spoken(value: object) -> str:
    return scrub(text_of(value))


def _quoted(value: object) -> str:
    text = scrub(text_of(value))
    plain = text != "" and text.isprintable() and not any(character in text for character in " \"'=\\")
    return text if plain else json.dumps(text, ensure_ascii=False)

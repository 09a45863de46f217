"""Give every log record the span that it belongs to, and take out of it what must not be logged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.trace import SpanContext, get_current_span

from poller.events.errors import where
from poller.events.privacy import scrub_attributes
from poller.events.shapes import scrub

_SPAN = "_telemetry_span"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName", "color_message", _SPAN),
}
"""What every record has (and uvicorn's); the rest are the `extra` fields of the one who logged."""
_CLIENT_FIRST = re.compile(r"^\S{1,256}:\d{1,5} - ")
"""What uvicorn logs at its level TRACE begins so."""
_PERSONAL_ATOMS = {"h": "-", "l": "-", "u": "-", "q": "", "f": "-", "a": "-", "R": "-", "Uq": "-"}
"""Of the access logs of gunicorn and hypercorn."""


def install() -> None:
    """Have every record made so from now on, of whatever logger, before any handler sees it."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Factory):
        logging.setLogRecordFactory(_Factory(factory))


def span_of(record: logging.LogRecord) -> SpanContext | None:
    """The span that a record belongs to, None where it belongs to none.

    It is the one in which the record was made, or else the one in which its exception was seen first.
    """
    span = getattr(record, _SPAN, None)
    if span is None:
        span = _current()
    if span is None and record.exc_info:
        span = where(record.exc_info[1])
    return span if isinstance(span, SpanContext) else None


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """The `extra` fields of a record that may be shown."""
    return scrub_attributes({name: value for name, value in vars(record).items() if name not in _STANDARD})


class Scrubber(logging.Filter):
    """Scrubs, in place, the parts of a record that come later than its making; for handlers of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        kept = scrub_attributes(given)
        for name in given.keys() - kept.keys():
            delattr(record, name)
        vars(record).update(kept)
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        # Formatters take the text before the exception.
        record.exc_text = record.exc_text and scrub(record.exc_text)
        record.stack_info = record.stack_info and scrub(record.stack_info)
        return True


class _Factory:
    """Makes records with the factory that was there before."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.inner(*args, **kwargs)
        setattr(record, _SPAN, _seen(record) or _current())
        if _is_access(record):
            return record
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit; whoever handles the record will say so
            return record
        clean = scrub(message)
        if record.name.startswith("uvicorn"):
            clean = _CLIENT_FIRST.sub("- - ", clean)
        if clean != message:
            record.msg, record.args = clean, None
        return record


def _seen(record: logging.LogRecord) -> SpanContext | None:
    """Where the record's exception was seen, unless a span is under way; the current one may have ended.

    On a kept connection that is the last request's.
    """
    if not record.exc_info or get_current_span().is_recording():
        return None
    return where(record.exc_info[1])


def _current() -> SpanContext | None:
    context = get_current_span().get_span_context()
    return context if context.is_valid else None


def _is_access(record: logging.LogRecord) -> bool:
    """Take the client out of what an ASGI server logs of a request, and leave the form to its formatters."""
    args = record.args
    if record.name == "uvicorn.access" and isinstance(args, tuple) and len(args) == 5:
        _, method, path, version, status = args
        record.args = ("-", method, scrub(str(path)), version, status)
        return True
    if record.name in ("gunicorn.access", "hypercorn.access") and isinstance(args, Mapping):
        record.args = _Atoms(args)
        return True
    return False


class _Atoms(dict[str, Any]):
    """The atoms of an access log without the client; unknown ones, headers among them, are a dash."""

    def __init__(self, atoms: Mapping[str, Any]) -> None:
        named = {name: scrub(value) if isinstance(value, str) else value for name, value in atoms.items()}
        super().__init__({name: value for name, value in named.items() if not name.startswith("{")})
        self.update(_PERSONAL_ATOMS)

    def __missing__(self, name: str) -> str:
        return "-"

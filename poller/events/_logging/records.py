"""Log record factory and filters that add the current span and scrub personal data."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from opentelemetry.trace import SpanContext, get_current_span

from poller.events._asgi.errors import ErrorOrigin, first_place
from poller.events._privacy.attributes import scrub_attributes
from poller.events._privacy.patterns import scrub, scrub_path
from poller.events._privacy.texts import LONGEST
from poller.events.request import request_id
from poller.model.log_format import extra_fields
from poller.model.printable import one_line, text_of

_PLACE = "_telemetry_place"
_HIDDEN = (_PLACE, "color_message")
"""Attributes that are no `extra` fields of the caller: the one above, and one of uvicorn."""
_CLIENT_FIRST = re.compile(r"^\S{1,256}:\d{1,5} - ")
"""Prefix of uvicorn's records at its level TRACE."""
_PRINTED = "/?#[]@!$&'()*+,;=:%~"
"""Characters of a path that an access log does not escape."""
_PLAIN = (str, int, float, bool, type(None))
_PERSONAL_ATOMS = {"h": "-", "l": "-", "u": "-", "q": "", "f": "-", "a": "-", "R": "-", "Uq": "-"}
"""Replacements for the atoms of the access logs of gunicorn and hypercorn that identify a client."""
_FRAME = '\n  File "'
_FORMATTER = logging.Formatter()


def install() -> None:
    """Scrub every new record of every logger before a handler receives it."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Factory):
        logging.setLogRecordFactory(_Factory(factory))


def place_of(record: logging.LogRecord) -> ErrorOrigin | None:
    """Return the span and the request of a record; None if it has neither.

    They are those of the context that created the record, or else those in which its exception was first
    seen.
    """
    place = getattr(record, _PLACE, None)
    if place is None:
        place = _current()
    if place is None and record.exc_info:
        place = first_place(record.exc_info[1])
    return place if isinstance(place, ErrorOrigin) else None


def span_of(record: logging.LogRecord) -> SpanContext | None:
    """Return the span of a record; None if it has none."""
    place = place_of(record)
    return place.span if place else None


def message_of(record: logging.LogRecord) -> str:
    """Return the scrubbed message, or the format alone if the arguments do not fit. Never raises."""
    try:
        return scrub(record.getMessage())
    except Exception as error:  # noqa: BLE001 - wrong arguments, or a foreign __str__
        return scrub(f"{text_of(record.msg)} (its arguments do not fit: {type(error).__name__})")


def report_failure(record: logging.LogRecord) -> None:
    """Report a failed write on stderr, in one line and without the record's arguments.

    Python's own report, `--- Logging error ---`, contains the unscrubbed arguments.
    """
    if logging.raiseExceptions and sys.stderr is not None:
        kind = sys.exc_info()[0]
        problem = kind.__name__ if kind else "unknown error"
        try:
            sys.stderr.write(
                f"a record of logger {one_line(text_of(record.name))} could not be written: {problem}\n"
            )
        except (OSError, ValueError):
            return


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return the scrubbed `extra` fields of a record, without denied fields."""
    return scrub_attributes(extra_fields(record, *_HIDDEN))


class Scrubber(logging.Filter):
    """Filter for foreign handlers: scrubs, in place, texts added to a record after its creation."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Scrub the record and accept it."""
        _clean(record)  # a record from a queue or a socket was created elsewhere
        fields = extra_fields(record, *_HIDDEN)
        scrubbed = scrub_attributes(fields)
        for name in fields.keys() - scrubbed.keys():
            delattr(record, name)
        vars(record).update(scrubbed)
        if record.exc_info and not record.exc_text:
            record.exc_text = traceback_of(record.exc_info)
        # Formatters prefer `exc_text` to the exception.
        record.exc_text = record.exc_text and scrub(record.exc_text)
        record.stack_info = record.stack_info and scrub(record.stack_info)
        return True


def traceback_of(exc_info: Any) -> str:
    """Return the traceback as `logging` formats it, scrubbed; only the type if it cannot be formatted.

    A long traceback keeps its beginning and its end, which contains the cause.
    """
    try:
        return scrub(_without_middle(_FORMATTER.formatException(exc_info)))
    except Exception:  # noqa: BLE001 - attributes of foreign exceptions may raise
        return f"{getattr(exc_info[0], '__name__', 'an exception')} (it cannot be formatted)"


def _without_middle(traceback: str) -> str:
    """Shorten to about `LONGEST` characters; the end starts at a frame, not within a message."""
    if len(traceback) <= LONGEST:
        return traceback
    half = (LONGEST - 1_000) // 2
    at = traceback.find(_FRAME, len(traceback) - half)
    start = traceback.rfind(_FRAME) if at < 0 else at
    if start < half:
        return traceback
    head = traceback[:half].rpartition("\n")[0]
    return f"{head}\n  ... {start - len(head)} characters ...{traceback[start : start + half]}"


class _Factory:
    """Creates records with the previous factory, then scrubs them and adds the current span."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.inner(*args, **kwargs)
        setattr(record, _PLACE, _place_of_exception(record) or _current())
        if not _is_access(record):
            _clean(record)
        return record


def _clean(record: logging.LogRecord) -> None:
    """Replace the message and its arguments with the scrubbed message, unless they are harmless."""
    if isinstance(record.args, _Atoms):
        return
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - Python would print the raw arguments and drop the record
        record.msg, record.args = message_of(record), None
        return
    clean = scrub(message)
    if str(record.name).startswith("uvicorn"):  # makeLogRecord sets the name later
        clean = _CLIENT_FIRST.sub("- - ", clean)
    args = record.args if isinstance(record.args, tuple) else (record.args,)
    # Other objects may reveal more if a handler formats them again.
    if clean != message or not all(isinstance(argument, _PLAIN) for argument in args):
        record.msg, record.args = clean, None


def _place_of_exception(record: logging.LogRecord) -> ErrorOrigin | None:
    """Return where the record's exception was first seen, unless a recording span is current.

    A current span that has ended may belong to the previous request of a keep-alive connection.
    """
    if not record.exc_info or get_current_span().is_recording():
        return None
    return first_place(record.exc_info[1])


def _current() -> ErrorOrigin | None:
    context = get_current_span().get_span_context()
    return ErrorOrigin(context, request_id()) if context.is_valid else None


def _is_access(record: logging.LogRecord) -> bool:
    """Remove the client from an ASGI server's access record; its own formatter keeps the layout."""
    args = record.args
    if record.name == "uvicorn.access" and isinstance(args, tuple) and len(args) == 5:
        _, method, path, version, status = args
        record.args = ("-", method, quote(scrub_path(text_of(path)), _PRINTED), version, status)
        return True
    if record.name in ("gunicorn.access", "hypercorn.access") and isinstance(args, Mapping):
        record.args = _Atoms(args)
        return True
    return False


class _Atoms(dict[str, Any]):
    """Atoms of an access log without the client; unknown atoms, such as headers, are a dash."""

    def __init__(self, atoms: Mapping[str, Any]) -> None:
        named = {name: scrub(value) if isinstance(value, str) else value for name, value in atoms.items()}
        super().__init__({name: value for name, value in named.items() if not name.startswith("{")})
        self.update(_PERSONAL_ATOMS)

    def __missing__(self, name: str) -> str:
        return "-"

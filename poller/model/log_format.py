"""Log formatters: one JSON object or one line of text per record, with every extra field.

It imports only `printable` of the poller, because both the daemon and `poller.events` need it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from poller.model.printable import indented, one_line

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of every record; all other attributes are `extra` fields of the caller."""
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": "\x1b[2m"}
_OFF = "\x1b[0m"
_MOST_BITS = 14_000
"""str() rejects an integer of more than 4300 digits (Python documentation, int_max_str_digits)."""


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Functions that read the parts of a record; each returns texts without secrets and personal data."""

    message: Callable[[logging.LogRecord], str]
    exception: Callable[[logging.LogRecord], str]
    """The traceback; empty if there is none."""
    extras: Callable[[logging.LogRecord], Mapping[str, Any]]
    """The `extra` fields. Only their strings and numbers are written as they are."""
    trace: Callable[[logging.LogRecord], Mapping[str, str]]
    """`trace_id`, `span_id` and, for a server's request, `request.id`; the text format omits empty ones."""
    text: Callable[[object], str]
    """The text of any other value, masked."""


def extra_fields(record: logging.LogRecord, *hidden: str) -> dict[str, Any]:
    """Return the `extra` fields of a record, except `hidden` ones."""
    return {
        name: value for name, value in vars(record).items() if name not in _STANDARD and name not in hidden
    }


class JsonFormatter(logging.Formatter):
    """One JSON object per line: timestamp, severity, logger, message, trace_id, span_id and all extra fields.

    The trace fields have OpenTelemetry's names for logs outside OTLP (specification,
    compatibility/logging_trace_context.md). Outside a span they are empty, so that every line has them.
    """

    def __init__(self, reader: RecordReader) -> None:
        super().__init__()
        self._reader = reader

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a value that JSON cannot represent, such as NaN, becomes text."""
        read = self._reader
        line: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "severity": record.levelname,
            "logger": record.name,
            "message": read.message(record).rstrip("\n"),
            **read.trace(record),
        }
        if exception := read.exception(record):
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = read.text(record.stack_info)
        for name, value in read.extras(record).items():
            line[f"{name}_" if name in line else name] = value
        try:
            text = json.dumps(line, ensure_ascii=False, default=read.text, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # a non-string key, a number that JSON lacks
            plain = {name: value if _is_plain(value) else read.text(value) for name, value in line.items()}
            text = json.dumps(plain, ensure_ascii=False)
        return one_line(text)


class TextFormatter(logging.Formatter):
    """Time, severity, logger, message and all extra fields as key=value; an indented traceback follows."""

    def __init__(self, reader: RecordReader, *, coloured: bool = False) -> None:
        super().__init__()
        self._reader = reader
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        read = self._reader
        level = one_line(f"{record.levelname:<7}")
        if self._coloured and (colour := _COLOURS.get(record.levelname)):
            level = f"{colour}{level}{_OFF}"
        trace = {name: value for name, value in read.trace(record).items() if value}
        fields = [f"{name}={self._quoted(value)}" for name, value in {**read.extras(record), **trace}.items()]
        # A server's message may have several lines, but grep and journald need a record on one line.
        output = one_line(" ".join([f"{record.name}:", read.message(record).rstrip("\n"), *fields]))
        # Lines of a traceback are indented, so that they do not look like records.
        below = [read.exception(record), read.text(record.stack_info or "")]
        return f"{_timestamp(record)} {level} {output}" + "".join(map(indented, filter(None, below)))

    def _quoted(self, value: object) -> str:
        text = str(value) if _is_plain(value) else self._reader.text(value)
        plain = text != "" and text.isprintable() and not any(character in text for character in " \"'=\\")
        return text if plain else json.dumps(text, ensure_ascii=False)


def _timestamp(record: logging.LogRecord) -> str:
    """Return the record's time by RFC 3339: UTC, with milliseconds."""
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_plain(value: object) -> bool:
    """Return whether a field is written as it is: `extras` has masked strings, and numbers stay numbers."""
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is int:
        return value.bit_length() <= _MOST_BITS
    return value is None or type(value) in (str, bool)

"""Telemetry facts about an exception: type, SQLSTATE, client or server error, and originating span."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from opentelemetry.trace import Span, SpanContext

_PLACE = "__telemetry_span__"
_DEEPEST = 10
"""Maximum number of exceptions that are followed in a chain, because a chain can be circular."""


def error_type(error: BaseException) -> str:
    """Return the full class name, which is `error.type` (semantic conventions 1.44, "Recording errors")."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE from an error of psycopg, asyncpg or psycopg2, or of SQLAlchemy around it."""
    for candidate in (error, getattr(error, "orig", None)):
        for name in ("sqlstate", "pgcode"):
            if isinstance(state := getattr(candidate, name, None), str) and state:
                return state
    return None


def is_clients_fault(error: BaseException) -> bool:
    """Return whether an exception means a 4xx response, as HTTPException in Starlette, FastAPI and Litestar.

    A 4xx response is not a failure of the server, so such an exception fails no span (semantic conventions
    1.44, HTTP spans, "Status").
    """
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and 400 <= status < 500


class ErrorOrigin(NamedTuple):
    """The span and the request id in which an exception was first seen."""

    span: SpanContext
    request_id: str | None


def mark(error: BaseException, span: SpanContext, request_id: str | None = None) -> bool:
    """Store in an exception the span in which it was first seen; return whether this is the first time.

    A server logs an unhandled exception after the request's span has ended; the mark connects the log record
    with the span.
    """
    if hasattr(error, _PLACE):
        return False
    with contextlib.suppress(AttributeError, TypeError):
        setattr(error, _PLACE, ErrorOrigin(span, request_id))
    return True


def record(span: Span, error: BaseException) -> None:
    """Add the exception event; omit the message if the exception cannot be converted to text."""
    try:
        span.record_exception(error)
    except Exception:  # noqa: BLE001 - __str__ of a foreign class may raise
        span.add_event("exception", {"exception.type": error_type(error)})


def first_place(error: BaseException | None) -> ErrorOrigin | None:
    """Return the place in which an exception or one of its causes was first seen; None if not marked."""
    for _ in range(_DEEPEST):
        if error is None:
            return None
        if isinstance(place := getattr(error, _PLACE, None), ErrorOrigin):
            return place
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return None

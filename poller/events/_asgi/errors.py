"""Telemetry facts about an exception: type, SQLSTATE, client or server error, and originating span."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from opentelemetry.trace import Span, SpanContext

_WHERE = "__telemetry_span__"
_DEEPEST = 10
"""Exceptions of one chain that are looked at; a chain may be a circle."""


def error_type(error: BaseException) -> str:
    """The full name of its class, which is `error.type` (semantic conventions 1.44, "Recording errors")."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE that the database gave, of psycopg, asyncpg, psycopg2, or of SQLAlchemy around them."""
    for one in (error, getattr(error, "orig", None)):
        for name in ("sqlstate", "pgcode"):
            if isinstance(state := getattr(one, name, None), str) and state:
                return state
    return None


def is_clients_fault(error: BaseException) -> bool:
    """Whether it stands for an answer 4xx, as the HTTPException of Starlette, FastAPI and Litestar does.

    A server that refuses works as it should: such an exception fails no span (semantic conventions 1.44, HTTP
    spans, "Status").
    """
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and 400 <= status < 500


class Place(NamedTuple):
    """Where an exception was seen first."""

    span: SpanContext
    request_id: str | None


def mark(error: BaseException, where: SpanContext, request_id: str | None = None) -> bool:
    """Remember in which span an exception was seen first; returns whether this is the first time.

    A server logs what broke a request when the request's span is over; by the mark that line finds it.
    """
    if hasattr(error, _WHERE):
        return False
    with contextlib.suppress(AttributeError, TypeError):
        setattr(error, _WHERE, Place(where, request_id))
    return True


def record(span: Span, error: BaseException) -> None:
    """Add the exception event, without the message if the exception cannot show it."""
    try:
        span.record_exception(error)
    except Exception:  # noqa: BLE001 - other people's __str__
        span.add_event("exception", {"exception.type": error_type(error)})


def where(error: BaseException | None) -> Place | None:
    """Where an exception, or one that led to it, was seen first; None where none was."""
    for _ in range(_DEEPEST):
        if error is None:
            return None
        if isinstance(found := getattr(error, _WHERE, None), Place):
            return found
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return None

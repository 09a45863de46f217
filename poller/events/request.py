"""Context of the current request: root span, route, request id and user."""

from __future__ import annotations

import random
import re
import uuid
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, set_span_in_context

from poller.events._privacy.patterns import scrub
from poller.model.printable import text_of

_VALID_ID = re.compile(rb"[A-Za-z0-9_-]{8,128}")
"""Allowed request ids. Without dots and colons an id can be neither an IP address nor a JWT."""
_LONGEST_USER = 128


class CurrentRequest:
    """The HTTP request or WebSocket session that the current task handles."""

    __slots__ = ("id", "is_probe", "route", "span")

    def __init__(self, span: Span, id: str) -> None:  # noqa: A002 - the usual name
        self.span = span
        self.id = id
        self.route: str | None = None
        self.is_probe = False
        """Whether `Health` has answered this request."""


current: ContextVar[CurrentRequest | None] = ContextVar("request", default=None)
"""Current request. Tasks and threads (asyncio, anyio) that a request starts share the same object."""


def unsampled() -> Context:
    """Return a context with a new, unsampled trace: log lines have its ids, but no span is exported."""
    ids = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=False)), Context())


def set_user(user_id: object) -> None:
    """Set `user.id` on the request's root span, anywhere in the code that handles the request.

    The id must be meaningless outside of your database (a UUID, but no name or e-mail address). It is
    truncated to 128 characters. Outside of a request the call has no effect.
    """
    if request := current.get():
        request.span.set_attribute("user.id", text_of(user_id)[:_LONGEST_USER])


def set_route(template: str) -> None:
    """Set the route template of the request, for a framework that does not expose its route."""
    if request := current.get():
        request.route = template


def request_id() -> str | None:
    """Return the request id that the response contains; None outside of a request."""
    request = current.get()
    return request.id if request else None


def valid_or_new_id(header: bytes | None) -> str:
    """Return the client's request id if it is valid and contains no secret, else a new UUID (version 4).

    The id is checked only here, so that log lines, spans and the response contain the same id.
    """
    if header is not None and _VALID_ID.fullmatch(header):
        text = header.decode("ascii")
        if scrub(text) == text:
            return text
    return str(uuid.uuid4())

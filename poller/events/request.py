"""Context of the current request: root span, route, request id and user."""

from __future__ import annotations

import random
import re
import uuid
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, set_span_in_context

from poller.events._privacy.patterns import scrub, text_of

_SANE_ID = re.compile(rb"[A-Za-z0-9_-]{8,128}")
"""Neither an address nor a JWT is one, for want of dots and colons."""
_LONGEST_USER = 128


class Request:
    """The request, or the WebSocket session, that a task runs for."""

    __slots__ = ("id", "is_probe", "route", "span")

    def __init__(self, span: Span, id: str) -> None:  # noqa: A002 - it is one
        self.span = span
        self.id = id
        self.route: str | None = None
        self.is_probe = False
        """Whether `Health` answers it."""


current: ContextVar[Request | None] = ContextVar("request", default=None)
"""Copied into every task and every thread (asyncio, anyio) that a request starts; they share one object."""


def unsampled() -> Context:
    """A context with a new trace that is not sampled: log lines have its ids, and no span is exported."""
    ids = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=False)), Context())


def set_user(user_id: object) -> None:
    """Put `user.id` on the request's root span, wherever in the request the user becomes known.

    It must mean nothing outside of your database (a UUID), as a name or an e-mail address would; of a longer
    text than 128 characters the rest is cut off. Outside of a request it does nothing.
    """
    if request := current.get():
        request.span.set_attribute("user.id", text_of(user_id)[:_LONGEST_USER])


def set_route(template: str) -> None:
    """Tell the route of the request, for a framework that tells none; it must be a template."""
    if request := current.get():
        request.route = template


def request_id() -> str | None:
    """The id of the request that runs, as the client is told it; None outside of a request."""
    request = current.get()
    return request.id if request else None


def kept_or_made(given: bytes | None) -> str:
    """The client's own request id, if it is one and no secret, or else a new one (UUID, version 4).

    Log lines, spans and the response have the same id, so that it is judged here, once.
    """
    if given is not None and _SANE_ID.fullmatch(given):
        chosen = given.decode("ascii")
        if scrub(chosen) == chosen:
            return chosen
    return str(uuid.uuid4())

"""Base class of a client's exchange with an ASGI application: root span, route and request id."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.propagate import extract, get_global_textmap
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context

from poller.events import request
from poller.events._asgi.errors import error_type, mark, record
from poller.events._asgi.routes import Scope, route_of
from poller.events._privacy.texts import LONGEST_PATH, shorten
from poller.events.attributes import HTTP_METHODS, OTHER, UNMATCHED
from poller.events.metrics import EventMetrics

logger = logging.getLogger(__name__)

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]

CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client disconnected before the response (as in nginx)."""
FAILED = 500
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_LONGEST_METHOD = 64
"""Maximum length of an unknown method in characters, because clients choose it; longer ones are omitted."""
_REQUEST_ID = b"x-request-id"
_METHODS = frozenset(HTTP_METHODS)
_DISCONNECT_ERRORS = frozenset(
    {"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect", "CancelledError"}
)
"""Exceptions that end an application whose client has disconnected."""


class Exchange(ABC):
    """Context in which the application runs, with the scope and the callables that it receives."""

    def __init__(
        self,
        tracer: Tracer,
        metrics: EventMetrics,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        public: bool = False,
        finds_probes: bool = False,
    ) -> None:
        """Start the root span, as a child of the span in the client's headers if there is one.

        With `public` the span starts a new trace and links to the client's span. With `finds_probes` a
        request that `Health` answers is not counted and has no span.
        """
        self._began = perf_counter()
        self._metrics = metrics
        self._receive = receive
        self._send = send
        self.method = method if (method := scope.get("method", "GET")) in _METHODS else OTHER
        self._scheme = _SCHEMES.get(scope.get("scheme", "http"), "http")
        self._version = scope.get("http_version", "")
        self._finds_probes = finds_probes
        client_id, parent = _read(scope["headers"])
        links = None
        if public:
            remote = get_current_span(parent).get_span_context()
            links, parent = ([Link(remote)] if remote.is_valid else None), Context()
        self.id = request.valid_or_new_id(client_id)
        attributes = {
            "http.request.method": self.method,
            "url.path": shorten(scope["path"], LONGEST_PATH),
            "url.scheme": scope.get("scheme", "http"),
            "request.id": self.id,
        }
        if self.method == OTHER and len(method) <= _LONGEST_METHOD:
            attributes["http.request.method_original"] = method
        self.span = tracer.start_span(
            self.name(None),
            parent,
            SpanKind.SERVER,
            attributes,
            links,
        )
        self._context = set_span_in_context(self.span, parent)
        self._request = request.CurrentRequest(self.span, self.id)
        # The application stores the route in its scope. Without the key `fastapi.telemetry`, FastAPI would
        # create a second root span.
        self.scope: Scope = {"fastapi.telemetry": None, **scope}
        self._route = ""
        self._disconnected = False
        metrics.http_requests_active(1, self.method, self._scheme)

    @property
    def is_probe(self) -> bool:
        """Return whether `Health` has answered the request and probes are detected automatically."""
        return self._finds_probes and self._request.is_probe

    def __enter__(self) -> Self:
        self._attached = attach(self._context)
        self._entered = request.current.set(self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._is_disconnect(error):
                mark(error, self.span.get_span_context(), self.id)
                error = None
            self.over(error)
        finally:
            request.current.reset(self._entered)
            detach(self._attached)

    @abstractmethod
    async def receive(self) -> AsgiMessage:
        """Receive a message for the application."""

    @abstractmethod
    async def send(self, message: AsgiMessage) -> None:
        """Send a message for the application."""

    async def forward(self, message: AsgiMessage) -> None:
        """Send a message; an OSError means that the client has disconnected (ASGI, "Send")."""
        try:
            await self._send(message)
        except OSError:
            self._disconnected = True
            raise

    @abstractmethod
    def name(self, route: str | None) -> str:
        """Return the name of the root span; `route` is None until the route is known."""

    @abstractmethod
    def over(self, error: BaseException | None) -> None:
        """End the exchange after the application has returned or raised `error`."""

    def with_id(self, message: AsgiMessage) -> AsgiMessage:
        """Return the start of a response with the request id added to its headers."""
        headers = list(message.get("headers") or ())
        if not any(name == _REQUEST_ID for name, _ in headers):
            headers.append((_REQUEST_ID, self.id.encode()))
        return {**message, "headers": headers}

    def count(self, status: int, error: BaseException | None = None) -> None:
        """Count the request once, while its span is current, so that exemplars refer to it."""
        if self._route:
            return
        self._route = self._request.route or _route_of(self.scope)
        self._metrics.http_requests_active(-1, self.method, self._scheme)
        if not self.is_probe:
            self._metrics.http_request(
                self.method,
                self._route,
                status,
                perf_counter() - self._began,
                scheme=self._scheme,
                protocol_version=self._version,
                error_type=error_type(error) if error else None,
            )

    def end_span(self, status: int, error: BaseException | None, at: int | None) -> None:
        """End the root span at `at` (nanoseconds since 1970) or now; `error` or a status of 5xx fails it."""
        span = self.span
        first = error is not None and mark(error, span.get_span_context(), self.id)
        if self.is_probe:
            return  # a span that does not end is not exported
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            if self._route != UNMATCHED:
                span.set_attribute("http.route", self._route)
                span.update_name(self.name(self._route))
            if error is not None or status >= FAILED:
                span.set_attribute("error.type", str(status) if error is None else error_type(error))
                span.set_status(StatusCode.ERROR)
            if error is not None and first:
                record(span, error)
        span.end(at)

    def _is_disconnect(self, error: BaseException) -> bool:
        return self._disconnected and (
            isinstance(error, OSError) or type(error).__name__ in _DISCONNECT_ERRORS
        )


def _route_of(scope: Scope) -> str:
    """Return the route, or `unmatched` if the scope contains unexpected data."""
    try:
        return route_of(scope)
    except Exception:  # telemetry must not fail a request
        logger.exception("the route of a request could not be determined")
        return UNMATCHED


def _read(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes | None, Context]:
    """Return the client's request id, and the trace context from its headers.

    Without trace headers the context is empty. The current context is not used, because on a keep-alive
    connection it may belong to the previous request.
    """
    fields = get_global_textmap().fields
    request_id, carrier = None, {}
    for name, value in headers:
        if name == _REQUEST_ID:
            request_id = value
        elif (field := name.decode("latin-1")) in fields:
            carrier[field] = value.decode("latin-1")
    return request_id, extract(carrier, Context()) if carrier else Context()

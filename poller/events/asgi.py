"""ASGI middleware that traces and measures HTTP requests and WebSocket sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from time import time_ns

from opentelemetry.context import attach, detach
from opentelemetry.trace import TracerProvider, get_tracer_provider

from poller.events import request
from poller.events._asgi.errors import mark
from poller.events._asgi.exchange import (
    CLIENT_CLOSED_REQUEST,
    FAILED,
    AsgiMessage,
    Exchange,
    Receive,
    Send,
)
from poller.events._asgi.lifespan import ending
from poller.events._asgi.routes import Scope
from poller.events.attributes import OTHER
from poller.events.health import PATHS
from poller.events.metrics import SCOPE, EventMetrics
from poller.events.websocket import WebSocketExchange

_MOST_PROBES = 100
"""Maximum number of remembered probe paths; a mount with a parameter could produce any number."""

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class TelemetryMiddleware:
    """Wrap an ASGI application: root spans, RED metrics by route template, request ids, WebSocket sessions.

    Make it the outermost layer, so that it also covers the code that answers errors: `app =
    TelemetryMiddleware(FastAPI(), metrics)`. It also works as one of the application's own middlewares:
    `app.add_middleware(TelemetryMiddleware, metrics=metrics)`. In that case the response to an unhandled
    exception is created outside of it and has no request id, and FastAPI (0.165) creates its own root spans
    unless it was created with `telemetry={"tracing": False}`.
    """

    def __init__(
        self,
        app: Application,
        metrics: EventMetrics,
        *,
        tracer_provider: TracerProvider | None = None,
        exclude: Collection[str] | None = None,
        public_endpoint: bool = False,
    ) -> None:
        """Wrap `app`; spans go to `tracer_provider`, or to the global provider, which may be set later.

        Requests for a path in `exclude` have no span and are not counted in any metric; their log lines have
        trace ids. The default excludes the probes that `Health` answers at any mount point.

        Set `public_endpoint` if untrusted clients can send requests. A client's `traceparent` then neither
        continues the client's trace nor decides about sampling; the root span starts a trace and links to the
        client's span.

        Raises TypeError if `exclude` is a string.
        """
        if isinstance(exclude, str):
            raise TypeError(f"exclude is the text {exclude!r}; write a list of paths: [{exclude!r}]")
        self.app = app
        self._metrics = metrics
        self._public = public_endpoint
        self._excluded = set(PATHS if exclude is None else exclude)
        self._finds_probes = exclude is None
        self._tracer = (tracer_provider or get_tracer_provider()).get_tracer(SCOPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request, session or lifespan."""
        kind = {"http": HttpExchange, "websocket": WebSocketExchange}.get(scope["type"])
        if kind is None:
            await self.app(scope, receive, ending(send) if scope["type"] == "lifespan" else send)
        elif scope["path"] in self._excluded:
            token = attach(request.unsampled())
            try:
                await self.app({"fastapi.telemetry": None, **scope}, receive, send)
            finally:
                detach(token)
        else:
            public, finds = self._public, self._finds_probes
            with kind(
                self._tracer, self._metrics, scope, receive, send, public=public, finds_probes=finds
            ) as exchange:
                await self.app(exchange.scope, exchange.receive, exchange.send)
            if exchange.is_probe and len(self._excluded) < _MOST_PROBES:
                self._excluded.add(scope["path"])


class HttpExchange(Exchange):
    """One HTTP request. It ends with the last byte of its response, even if the application runs on."""

    _status: int | None = None
    _trailers = False
    _over_at: int | None = None

    async def receive(self) -> AsgiMessage:
        """Receive a message and detect that the client disconnects."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._over_at is None:
            self._disconnected = True
        return message

    async def send(self, message: AsgiMessage) -> None:
        """Send a message and detect the start and the end of the response."""
        kind = message["type"]
        if kind == "http.response.start":
            # The response does not reach a client that has disconnected.
            self._status = CLIENT_CLOSED_REQUEST if self._disconnected else message["status"]
            self._trailers = message.get("trailers", False)
            message = self.with_id(message)
        await self.forward(message)
        if self._status is not None and self._over_at is None and self._is_last(kind, message):
            self._over_at = time_ns()
            self.count(self._status)
            if not self._may_have_failed():
                self.end_span(self._status, None, self._over_at)

    def name(self, route: str | None) -> str:
        """Return a name like `GET /v1/messages` (semantic conventions 1.44, HTTP spans, "Name")."""
        method = "HTTP" if self.method == OTHER else self.method
        return method if route is None else f"{method} {route}"

    def over(self, error: BaseException | None) -> None:
        """End the request; a failure after a complete response, as in a background task, does not count."""
        if self._over_at is None:
            gone = self._disconnected and error is None
            status = self._status or (CLIENT_CLOSED_REQUEST if gone else FAILED)
            self.count(status, error)
            self.end_span(status, error, None)
        elif self._status is not None and self._may_have_failed():
            self.end_span(self._status, error, self._over_at)
        elif error is not None:
            mark(error, self.span.get_span_context(), self.id)

    def _may_have_failed(self) -> bool:
        """Return whether an inner layer may have answered an exception that is still to arrive here."""
        return self._disconnected or (self._status or FAILED) >= FAILED

    def _is_last(self, kind: str, message: AsgiMessage) -> bool:
        if self._trailers:
            return kind == "http.response.trailers" and not message.get("more_trailers", False)
        if kind in ("http.response.body", "http.response.zerocopysend"):
            return not message.get("more_body", False)
        return kind == "http.response.pathsend"

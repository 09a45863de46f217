"""Periodic health checks of a server's components, and the endpoints `/livez` and `/readyz`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from types import TracebackType
from typing import Any, Literal, Self

from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode, get_tracer

from poller.events import request
from poller.events._asgi.errors import error_type
from poller.events._asgi.exchange import Receive, Send
from poller.events._asgi.routes import Scope
from poller.events.attributes import Component
from poller.events.metrics import SCOPE, EventMetrics
from poller.model.printable import text_of

logger = logging.getLogger(__name__)

Check = Callable[[], Awaitable[object]] | Callable[[], object]
Headers = Sequence[tuple[bytes, bytes]]
HealthStatus = Literal["ok", "error"]

PATHS = ("/livez", "/readyz")
"""Paths, relative to its mount, that `Health` answers."""
_VALID_INTERVALS = 3
"""Check intervals after which a value without a new check is omitted, as everywhere in this project."""


class Health:
    """Components that a server depends on, and the results of their last checks.

    `async with health:`, in the application's lifespan, checks all components at once and then every
    `interval` seconds. `health_status` thus stays current without requests to an endpoint. If this loop
    stops, the metric disappears after three intervals: an old 1 may be outdated, and a 0 would report a
    failure that was not observed.
    """

    def __init__(self, metrics: EventMetrics, *, interval: float = 15.0) -> None:
        """Create the object without components; `interval` is in seconds.

        Raises ValueError unless it is above 0.
        """
        if interval <= 0:
            raise ValueError(f"the interval is {interval:g} s; it must be above 0")
        self._metrics = metrics
        self._interval = interval
        self._components: dict[Component, _Component] = {}
        self._loop: asyncio.Task[None] | None = None

    def register(self, component: Component, check: Check, *, timeout: float = 2.0) -> None:
        """Register `check` for `component`; it fails if it raises, returns False or exceeds the timeout.

        A coroutine function is awaited; any other function runs in a thread. The check fails after `timeout`
        seconds. If it keeps running after that, it is not started a second time.

        Raises ValueError if the component is already registered or the timeout is not above 0.
        """
        if component in self._components:
            raise ValueError(f"{component!r} has a check already; register each component once")
        if timeout <= 0:
            raise ValueError(f"the timeout of {component!r} is {timeout:g} s; it must be above 0")
        self._components[component] = _Component(component, check, timeout)

    async def check(self) -> Mapping[Component, HealthStatus]:
        """Check all components concurrently and return the results; a running check is shared."""
        statuses = await asyncio.gather(*(component.run() for component in self._components.values()))
        for component, status in zip(self._components, statuses, strict=True):
            self._metrics.health_checked(component, status == "ok", _VALID_INTERVALS * self._interval)
        return dict(zip(self._components, statuses, strict=True))

    async def readiness(self) -> tuple[int, dict[str, str]]:
        """Check all components; return the status code and the JSON body of a readiness endpoint.

        The code is 200 or 503. `status` and every component have the value `ok` or `error`, as in the
        messaging server.
        """
        statuses = await self.check()
        status: HealthStatus = "ok" if all(status == "ok" for status in statuses.values()) else "error"
        return (200 if status == "ok" else 503), {"status": status, **dict(statuses.items())}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._run(), name="health")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
            self._loop = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET and HEAD of `/livez` and `/readyz`, as an ASGI application, mounted or standalone."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path not in PATHS:
                await _answer(send, 404)
                return
            if current := request.current.get():
                current.is_probe = True
            if scope["method"] not in ("GET", "HEAD"):
                await _answer(send, 405, headers=[(b"allow", b"GET, HEAD")])
            elif path == "/livez":
                await _answer(send, 200)
            else:
                await _answer(send, *await self.readiness())

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.check()
            except Exception:  # a failure must not end the loop
                logger.exception("the components could not be checked")
            await asyncio.sleep(max(0.0, self._interval - (time.monotonic() - began)))


class _Component:
    """One component, its check and the last result."""

    def __init__(self, name: Component, check: Check, timeout: float) -> None:
        self._name = name
        self._check = check
        self._timeout = timeout
        self._status: HealthStatus | None = None
        self._deciding: asyncio.Task[HealthStatus] | None = None
        self._answer: asyncio.Future[object] | None = None
        self._thread: threading.Thread | None = None

    async def run(self) -> HealthStatus:
        """Run the check, or wait for the running check."""
        if self._deciding is None or self._deciding.done() or _is_elsewhere(self._deciding):
            self._deciding = asyncio.create_task(self._decide(), name=f"check {self._name}")
        # A cancelled caller must not cancel the check for the other callers.
        return await asyncio.shield(self._deciding)

    async def _decide(self) -> HealthStatus:
        problem = await self._problem()
        status: HealthStatus = "error" if problem else "ok"
        if status != (self._status or "ok"):
            # Every log record needs a span, and a probe request that triggers the check is not traced.
            with get_tracer(SCOPE).start_as_current_span(f"check_{self._name}", Context()) as span:
                self._report(problem, span)
        self._status = status
        return status

    def _report(self, problem: str, span: Span) -> None:
        if problem:
            span.set_status(StatusCode.ERROR)
            logger.warning("%s fails: %s", self._name, problem, extra={"component": self._name})
        else:
            logger.info("%s works again", self._name, extra={"component": self._name})

    async def _problem(self) -> str:
        """Return the problem of the component; empty if it works."""
        if self._is_stuck():
            return "the previous check is still running"
        self._answer = answer = self._ask()
        done, _ = await asyncio.wait([answer], timeout=self._timeout)
        if not done:
            answer.cancel()
            return f"no answer within {self._timeout:g} s"
        if answer.cancelled():
            return "the check was cancelled"
        if (error := answer.exception()) is not None:
            return f"{error_type(error)}: {text_of(error)}"
        return "the check returned False" if answer.result() is False else ""

    def _is_stuck(self) -> bool:
        """Return whether the last check still runs; a second run would let hanging checks accumulate."""
        if self._thread is not None and self._thread.is_alive():
            return True
        return self._answer is not None and not self._answer.done() and not _is_elsewhere(self._answer)

    def _ask(self) -> asyncio.Future[object]:
        if inspect.iscoroutinefunction(self._check):
            return asyncio.ensure_future(self._check())
        # A daemon thread instead of the loop's executor: a hanging executor thread would delay process exit.
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self._thread = threading.Thread(
            target=copy_context().run,
            args=(_call, self._check, answer, loop),
            name=f"check {self._name}",
            daemon=True,
        )
        self._thread.start()
        return answer


def _call(check: Check, answer: asyncio.Future[object], loop: asyncio.AbstractEventLoop) -> None:
    """Run a check in the current thread and pass the result to the loop."""
    result: object = None
    problem: Exception | None = None
    try:
        result = check()
        if inspect.iscoroutine(result):
            result.close()
            problem = TypeError("the check returned a coroutine; register the coroutine function itself")
    except Exception as error:  # noqa: BLE001 - a check may raise anything
        problem = error

    def finish() -> None:
        if not answer.done():
            answer.set_exception(problem) if problem is not None else answer.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop may be closed already
        loop.call_soon_threadsafe(finish)


def _is_elsewhere(future: asyncio.Future[Any]) -> bool:
    """Return whether a future belongs to another event loop, which has ended."""
    return future.get_loop() is not asyncio.get_running_loop()


async def _answer(
    send: Send, status: int, body: Mapping[str, str] | None = None, headers: Headers = ()
) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    kind = [(b"content-type", b"application/json")] if body is not None else []
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*kind, length, *headers]})
    await send({"type": "http.response.body", "body": content})

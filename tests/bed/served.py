"""An ASGI application on a real uvicorn in a thread, with what its telemetry came to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from poller.events.asgi import Application, TelemetryMiddleware
from poller.events.testing import Recorder
from poller.receiver.ports import LOOPBACK, free_ports
from tests.bed.process import eventually


class Served:
    """One running application; `app` is wrapped in the middleware unless it brings its own."""

    def __init__(self, app: Any, *, wrapped: bool = True, lifespan: str = "auto", **config: Any) -> None:
        self.recorder = Recorder()
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        application: Application = self.wrap(app) if wrapped else app(self)
        (self.port,) = free_ports(1)
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                host=LOOPBACK,
                port=self.port,
                log_config=None,
                lifespan=lifespan,  # type: ignore[arg-type]  # one of its literals
                ws="websockets-sansio",
                timeout_graceful_shutdown=5,
                **config,
            )
        )
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)
        self._thread.start()
        assert eventually(lambda: self._server.started, 60)
        self.client = httpx.Client(base_url=f"http://{LOOPBACK}:{self.port}", timeout=60)

    def wrap(self, app: Any) -> TelemetryMiddleware:
        """The middleware around an application, as this object listens to it."""
        return TelemetryMiddleware(app, self.recorder.metrics, tracer_provider=self.tracer_provider)

    def stop(self) -> None:
        """Stop the server, after which nothing is under way."""
        self.client.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def spans(self, kind: SpanKind | None = SpanKind.SERVER) -> list[ReadableSpan]:
        """The spans that have ended, of a kind or of all."""
        return [span for span in self._exporter.get_finished_spans() if kind in (None, span.kind)]

    def root(self, number: int = 0) -> ReadableSpan:
        """The root span that ended first, or a later one; waits for it."""
        assert eventually(lambda: len(self.spans()) > number, 60)
        return self.spans()[number]

    def requests(self, **attributes: str) -> float:
        """How many requests were counted."""
        return self.recorder.total("http_requests_total", **attributes)

    def counted(self) -> list[tuple[str, str, str]]:
        """Method, route and status of each request that was counted, sorted; waits for nothing."""
        return sorted(
            (str(one.attributes["method"]), str(one.attributes["route"]), str(one.attributes["status"]))
            for one in self.recorder.series()
            if one.metric == "http_requests_total"
            for _ in range(int(one.value))
        )


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start applications with the arguments of `Served`; they are stopped at the test's end."""
    started: list[Served] = []

    def start(app: Any, **arguments: Any) -> Served:
        started.append(Served(app, **arguments))
        return started[-1]

    yield start
    for served in started:
        served.stop()
        served.recorder.close()

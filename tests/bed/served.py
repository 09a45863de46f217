"""An ASGI application on a real uvicorn in a thread, with its telemetry."""

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
from tests.bed.cleanup import closing_all
from tests.bed.process import eventually


class Served:
    """One running application; `app` is wrapped in the middleware unless it has its own."""

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
        """Return the application in the middleware that reports to this object."""
        return TelemetryMiddleware(app, self.recorder.metrics, tracer_provider=self.tracer_provider)

    def stop(self) -> None:
        """Stop the server; after that, no request is under way."""
        self.client.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def spans(self, kind: SpanKind | None = SpanKind.SERVER) -> list[ReadableSpan]:
        """Return the ended spans of one kind, or of all kinds."""
        return [span for span in self._exporter.get_finished_spans() if kind in (None, span.kind)]

    def root(self, number: int = 0) -> ReadableSpan:
        """Wait for the root span that ended first, or a later one, and return it."""
        assert eventually(lambda: len(self.spans()) > number, 60)
        return self.spans()[number]

    def requests(self, **attributes: str) -> float:
        """Return the number of counted requests."""
        return self.recorder.total("http_requests_total", **attributes)

    def counted(self) -> list[tuple[str, str, str]]:
        """Return method, route and status of each counted request, sorted, without waiting."""
        return sorted(
            (str(item.attributes["method"]), str(item.attributes["route"]), str(item.attributes["status"]))
            for item in self.recorder.series()
            if item.metric == "http_requests_total"
            for _ in range(int(item.value))
        )


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start applications with the arguments of `Served`; they are stopped at the test's end."""

    def close(served: Served) -> None:
        served.stop()
        served.recorder.close()

    with closing_all(Served, close) as start:
        yield start

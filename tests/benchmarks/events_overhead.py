"""Additional cost of a request with `poller.events` and with OpenTelemetry's own ASGI instrumentation.

    python -m tests.benchmarks.events_overhead [--rounds 40] [--requests 1000]

An application that responds with 200 and two bytes receives requests without a network in one process: bare,
then inside each middleware, in turn and round after round. The output is the CPU time of the process (all its
threads, including the SDK's) for one request beyond the time of the bare application: the median, the least
and the greatest of the rounds. Both middlewares use the same SDK and a batch processor whose exporter
discards the spans. A second part does the same over uvicorn and real connections, with each server in its own
process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # only the current names

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from poller.events import EventMetrics
from poller.events._privacy.processors import ScrubbedTracerProvider
from poller.events._privacy.views import permitting
from poller.events.asgi import TelemetryMiddleware
from poller.receiver.ports import LOOPBACK, free_ports

Application = Callable[[Any, Any, Any], Any]

HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"authorization", b"Bearer 0123456789abcdef"),
    (b"cookie", b"session=0123456789abcdef"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


class Nowhere(SpanExporter):
    """An exporter that discards everything."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Respond with two bytes."""
    del receive
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def _tracing(provider: TracerProvider) -> TracerProvider:
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=65_536))
    return provider


def _counting(**how: Any) -> MeterProvider:
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False, **how)


def ours() -> Application:
    """Return the middleware as `configure_telemetry` sets it up, with scrubbed spans."""
    tracers = _tracing(ScrubbedTracerProvider(shutdown_on_exit=False))
    return TelemetryMiddleware(bare, EventMetrics(_counting(views=[permitting()])), tracer_provider=tracers)


def theirs() -> Application:
    """Return OpenTelemetry's middleware with the root span, the metrics, and no span per message."""
    return OpenTelemetryMiddleware(
        bare,
        tracer_provider=_tracing(TracerProvider(shutdown_on_exit=False)),
        meter_provider=_counting(),
        exclude_spans=["receive", "send"],
    )


def theirs_by_default() -> Application:
    """Return OpenTelemetry's middleware with an additional span for each message."""
    return OpenTelemetryMiddleware(
        bare,
        tracer_provider=_tracing(TracerProvider(shutdown_on_exit=False)),
        meter_provider=_counting(),
    )


VARIANTS: dict[str, Callable[[], Application]] = {
    "bare": lambda: bare,
    "poller.events": ours,
    "opentelemetry-instrumentation-asgi": theirs,
    "the same with its default spans": theirs_by_default,
}


async def drive(app: Application, requests: int) -> float:
    """Return the CPU seconds for one request."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        del message

    began = time.process_time()
    for number in range(requests):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": f"/v1/users/{number % 100}",
            "raw_path": b"/v1/users/1",
            "query_string": b"ticket=1",
            "root_path": "",
            "headers": HEADERS,
            "client": ("203.0.113.7", 40_000),
            "server": ("127.0.0.1", 8000),
        }
        await app(scope, receive, send)
    return (time.process_time() - began) / requests


async def in_process(rounds: int, requests: int) -> dict[str, list[float]]:
    """Return the figures of all variants in this process, without a network."""
    apps = {name: make() for name, make in VARIANTS.items()}
    for app in apps.values():
        await drive(app, 500)
    return await _in_turn({name: partial(drive, app) for name, app in apps.items()}, rounds, requests)


class Served:
    """One variant on uvicorn in its own process."""

    def __init__(self, name: str) -> None:
        (self._port,) = free_ports(1)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--serve", name, "--port", str(self._port)]
        )

    async def drive(self, requests: int, connections: int = 4) -> float:
        """Return the server's CPU seconds for one request, on a few persistent connections."""
        before = await self._cpu()
        await asyncio.gather(*(self._ask("/v1/users/1", requests // connections) for _ in range(connections)))
        return (await self._cpu() - before) / requests

    async def wait(self) -> None:
        """Wait until it serves."""
        deadline = time.monotonic() + 60
        while True:
            try:
                await self._cpu()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    async def _cpu(self) -> float:
        return float(await self._ask("/cpu", 1))

    async def _ask(self, path: str, times: int) -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        headers = b"".join(b"%s: %s\r\n" % header for header in HEADERS)
        request = b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), headers)
        body = b""
        for _ in range(times):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r")[0])
            body = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
        return body


def serve(name: str, port: int) -> None:
    """Serve one variant; `/cpu` bypasses it and returns the CPU seconds so far."""
    import uvicorn

    app = VARIANTS[name]()

    async def measured(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/cpu":
            await app(scope, receive, send)
            return
        body = repr(time.process_time()).encode()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(measured, host=LOOPBACK, port=port, log_level="warning", access_log=False, lifespan="off")


async def over_uvicorn(rounds: int, requests: int) -> dict[str, list[float]]:
    """Return the same figures over real connections."""
    servers = {name: Served(name) for name in VARIANTS}
    try:
        for server in servers.values():
            await server.wait()
            await server.drive(400)
        return await _in_turn({name: server.drive for name, server in servers.items()}, rounds, requests)
    finally:
        for server in servers.values():
            server.stop()


async def _in_turn(
    drives: dict[str, Callable[[int], Awaitable[float]]], rounds: int, requests: int
) -> dict[str, list[float]]:
    """Return the CPU seconds for one request beyond the bare application's, by variant and round."""
    extra: dict[str, list[float]] = {name: [] for name in drives}
    for _ in range(rounds):
        cost = {name: await drive(requests) for name, drive in drives.items()}
        for name, seconds in cost.items():
            extra[name].append(seconds - cost["bare"])
    return extra


def report(title: str, extra: dict[str, list[float]]) -> None:
    """Print one line for each variant, with its ratio to the poller's middleware."""
    print(f"\n{title}: CPU time that one request costs more, median (least - greatest) of the rounds")
    base = statistics.median(extra["poller.events"])
    for name, seconds in extra.items():
        if name != "bare":
            figures = [
                f"{1e6 * value:6.1f}" for value in (statistics.median(seconds), min(seconds), max(seconds))
            ]
            ratio = statistics.median(seconds) / base
            print(f"{name:36}{figures[0]} us  ({figures[1]} -{figures[2]} us)   {ratio:4.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
    else:
        report("in process", asyncio.run(in_process(options.rounds, options.requests)))
        report("over uvicorn", asyncio.run(over_uvicorn(options.rounds, options.requests)))

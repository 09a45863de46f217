"""Disconnected clients, failing callers and missing collectors hide nothing and break nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode, get_current_span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from poller.events import EventMetrics, PoolState
from poller.events._catalog.semconv import BOUNDARIES
from poller.events._export.providers import _Closer
from poller.events._export.reader import Reader
from poller.events._logging import records
from poller.events._privacy.attributes import scrub_attributes
from poller.events._privacy.processors import ScrubbedTracerProvider
from poller.events._privacy.texts import LONGEST
from poller.events._privacy.views import scrub_metrics
from poller.events.asgi import TelemetryMiddleware
from poller.events.health import Health
from poller.events.logs import READER
from poller.events.testing import Recorder
from poller.model.log_format import JsonFormatter
from poller.model.series import with_points
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import Receiver
from tests.bed.process import Process, eventually
from tests.bed.served import Served
from tests.integration.events.test_telemetry import Server, environment, lines

Serve = Callable[..., Served]
Start = Callable[..., Process]


# --- disconnected clients


def test_a_client_that_disconnects_while_the_server_only_sends_causes_no_error(serve: Serve) -> None:
    async def send_only(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text("tick")
            await asyncio.sleep(0.01)

    served = serve(Starlette(routes=[WebSocketRoute("/ticks", send_only)]))
    with connect(f"ws://{LOOPBACK}:{served.port}/ticks", proxy=None) as client:
        client.recv()  # followed by a close with 1000
    root = served.root()
    assert root.status.status_code is StatusCode.UNSET
    assert list(root.events) == []
    assert (root.attributes or {})["http.response.status_code"] == 101
    assert served.recorder.value("websocket_active_connections") in (None, 0)


async def drive(
    app: Any, *, path: str = "/x", headers: Any = (), send: Any = None, **scope: Any
) -> list[Any]:
    """Run one request without a server; return the sent messages."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    whole = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": list(headers),
        "root_path": "",
        **scope,
    }
    await app({"query_string": b"", "http_version": "1.1", **whole}, receive, send or keep)
    return sent


def test_a_response_to_a_disconnected_client_causes_no_server_error() -> None:
    spans, provider = recorded()

    async def send(_: Any) -> None:
        raise OSError("the client has gone")

    app = TelemetryMiddleware(PlainTextResponse("x"), Recorder().metrics, tracer_provider=provider)
    with pytest.raises(OSError, match="gone"):
        asyncio.run(drive(app, send=send))
    (root,) = spans()
    assert root.status.status_code is StatusCode.UNSET


def recorded(**arguments: Any) -> tuple[Callable[[], list[ReadableSpan]], TracerProvider]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False, **arguments)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return lambda: list(exporter.get_finished_spans()), provider


# --- untrusted edges and probes

TRACEPARENT = (b"traceparent", f"00-{'c' * 32}-{'d' * 16}-01".encode())


@pytest.mark.parametrize("public", [False, True])
def test_a_clients_traceparent_decides_on_sampling_only_if_clients_are_trusted(public: bool) -> None:
    spans, provider = recorded(sampler=ParentBased(ALWAYS_OFF))
    app = TelemetryMiddleware(
        PlainTextResponse("x"), Recorder().metrics, tracer_provider=provider, public_endpoint=public
    )
    asyncio.run(drive(app, headers=[TRACEPARENT]))
    assert len(spans()) == (0 if public else 1)


def test_a_public_endpoint_begins_a_trace_and_links_to_the_clients_trace() -> None:
    spans, provider = recorded()
    app = TelemetryMiddleware(
        PlainTextResponse("x"), Recorder().metrics, tracer_provider=provider, public_endpoint=True
    )
    asyncio.run(drive(app, headers=[TRACEPARENT]))
    asyncio.run(drive(app))
    linked, plain = spans()
    assert linked.parent is None
    assert linked.context
    assert f"{linked.context.trace_id:032x}" != "c" * 32
    assert [f"{link.context.trace_id:032x}" for link in linked.links] == ["c" * 32]
    assert list(plain.links) == []


def test_health_probes_are_neither_traced_nor_counted_at_any_mount_point(serve: Serve) -> None:
    contexts = []

    async def note() -> None:
        contexts.append(get_current_span().get_span_context())

    def build(served: Served) -> Any:
        health = Health(served.recorder.metrics)
        health.register("database", note)
        return served.wrap(Starlette(routes=[Mount("/manage/deep", health), Route("/a/{x}", ok)]))

    served = serve(build, wrapped=False)
    for _ in range(3):
        assert served.client.get("/manage/deep/readyz").status_code == 200
        assert served.client.get("/manage/deep/livez").status_code == 200
        assert served.client.get("/a/livez").status_code == 200  # the client chooses the name
        assert served.client.get("/manage/deep/other").status_code == 404
    expected = [*[("GET", "/a/{x}", "200")] * 3, *[("GET", "/manage/deep/{path}", "404")] * 3]
    assert eventually(lambda: served.counted() == expected), served.counted()  # a response precedes its count
    assert {span.name for span in served.spans()} == {"GET /a/{x}", "GET /manage/deep/{path}"}
    assert len(contexts) == 3
    assert all(item.is_valid for item in contexts)


async def ok(_: Request) -> Response:
    return PlainTextResponse("ok")


def test_excluded_paths_can_be_configured() -> None:
    spans, provider = recorded()
    recorder = Recorder()
    places: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        places.append(records.place_of(logging.makeLogRecord({})))
        await PlainTextResponse("x")(scope, receive, send)

    wrapped = TelemetryMiddleware(app, recorder.metrics, tracer_provider=provider, exclude=["/ping"])
    asyncio.run(drive(wrapped, path="/ping"))
    asyncio.run(drive(wrapped, path="/livez"))
    assert [span.attributes["url.path"] for span in spans() if span.attributes] == ["/livez"]
    assert recorder.total("http_requests_total") == 1
    assert [place.span.trace_flags.sampled for place in places] == [False, True]
    assert all(place.span.is_valid for place in places)


# --- the log


def test_the_health_loop_logs_within_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, provider = recorded()
    # The API sets the global provider only once in a process.
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    places = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            places.append(records.place_of(record))

    logger = logging.getLogger("poller.events.health")
    logger.addHandler(handler := Handler())
    try:
        health = Health(Recorder().metrics)
        health.register("database", lambda: False)
        asyncio.run(health.check())
    finally:
        logger.removeHandler(handler)
    (span,) = spans()
    assert span.name == "check_database"
    assert span.status.status_code is StatusCode.ERROR
    assert [place and place.span for place in places] == [span.context]


def test_every_log_line_of_a_request_has_its_id_including_the_servers_traceback(
    receiver: Receiver, start_process: Start
) -> None:
    server = Server(start_process, environment(receiver))
    request_id = server.get("/hello/ann").headers["x-request-id"]
    broken = httpx.get(f"{server.url}/broken", headers={"x-request-id": "broken-request"}, timeout=60)
    assert broken.status_code == 500
    server.end()
    messages = [(line["message"], line.get("request.id")) for line in lines(server.process)]
    assert ("greeting", request_id) in messages
    assert any(
        text.startswith('- - "GET /hello/ann') and id_of_line == request_id for text, id_of_line in messages
    )
    assert any(
        "Exception in ASGI application" in text and id_of_line == "broken-request"
        for text, id_of_line in messages
    )
    assert request_id in {record.attributes.get("request.id") for record in receiver.records()}


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    error: Exception = LookupError("the first")
    for number in range(40):
        try:
            raise ValueError(f"{number}: {'x ' * 500}") from error  # noqa: TRY301 - a chain
        except ValueError as raised:
            error = raised
    text = records.traceback_of((type(error), error, error.__traceback__))
    assert len(text) <= LONGEST
    assert text.startswith("LookupError: the first")
    assert " characters ..." in text
    assert "ValueError: 39: x x" in text


def test_a_traceback_message_beyond_the_length_limit_is_cut() -> None:
    try:
        raise ValueError("x " * LONGEST)  # noqa: TRY301 - with a traceback
    except ValueError:
        text = records.traceback_of(sys.exc_info())
    assert "ValueError: x x" in text
    assert len(text) <= LONGEST + 100


def test_a_record_that_cannot_be_written_is_reported_in_a_single_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records.report_failure(logging.makeLogRecord({"name": "x\nforged line \x1b[2J"}))
    assert capsys.readouterr().err == (
        "a record of logger x\\nforged line \\u001b[2J could not be written: unknown error\n"
    )


def test_excluded_paths_must_be_a_list() -> None:
    with pytest.raises(TypeError, match=r"write a list of paths: \['/ping'\]"):
        TelemetryMiddleware(PlainTextResponse("x"), Recorder().metrics, exclude="/ping")


def test_a_record_with_wrong_arguments_is_written_without_them(start_process: Start, tmp_path: Path) -> None:
    script = """
import asyncio, logging, sys, threading
file = logging.FileHandler(sys.argv[1])
logging.getLogger().addHandler(file)
from poller.events.telemetry import configure_telemetry
configure_telemetry()
class Cannot:
    def __str__(self): raise RuntimeError("ada@example.org")
    __repr__ = __str__
class Falls:
    def __del__(self): raise ValueError("ada@example.org")
log = logging.getLogger("x")
log.warning("number %d", "ada@example.org")
log.warning("object %s", Cannot(), extra={"more": Cannot()})
log.warning("queued", exc_info=(ValueError, ValueError(Cannot()), None))
Falls()
thread = threading.Thread(target=lambda: 1 / int("ada@example.org"))
thread.start(); thread.join()
async def main():
    asyncio.ensure_future(fail()); await asyncio.sleep(0); await asyncio.sleep(0)
async def fail(): raise ValueError("ada@example.org")
asyncio.run(main())
late = {"name": "x", "levelno": 40, "msg": "late %d", "args": ("ada@example.org",)}
log.handle(logging.makeLogRecord(late))
file.stream.close(); file.stream = type("Full", (), {"write": lambda *_: 1 / 0, "flush": lambda *_: None})()
log.warning("for %s", "ada")
"""
    process = start_process(
        [sys.executable, "-c", script, str(tmp_path / "log")], env={"OBSCURA_LOG_FORMAT": "json"}
    )
    assert process.wait() == 0, process
    written = (tmp_path / "log").read_text(encoding="utf-8")
    for text in (written, process.stderr):
        assert "ada@example.org" not in text
        assert "Logging error" not in text
        assert "number %d (its arguments do not fit: TypeError)" in text
        assert "object %s (its arguments do not fit: RuntimeError)" in text
        assert "late %d (its arguments do not fit: TypeError)" in text
        assert "Falls.__del__" in text
        assert "uncaught exception" in text
        assert "Task exception was never retrieved" in text
    assert process.stderr.count("a record of logger x could not be written: ZeroDivisionError") == 1
    records = [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]
    assert records[-1]["message"] == "for ada"


def test_a_line_with_any_fields_is_written() -> None:
    class Cannot(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("changed meanwhile")

    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    record = logging.makeLogRecord({"msg": "x", "a": Cannot(), "b": deep, "c": {"ada@example.org": 1}})
    line = json.loads(JsonFormatter(READER).format(record))
    assert line["a"] == "[redacted]"
    assert line["c"] == {"[redacted]": 1}
    ((name, value),) = scrub_attributes({"x" * 100_000: 1}).items()
    assert (len(name) < LONGEST, value) == (True, 1)


# --- privacy in access logs and texts


@pytest.mark.parametrize(
    "secret", ["ada@example.org", "2001:db8:77::1", "Bearer abcdefgh1234", "token=abcdef"]
)
def test_uvicorns_access_log_contains_no_percent_encoded_secret(start_process: Start, secret: str) -> None:
    server = Server(start_process, {"OBSCURA_LOG_FORMAT": "json"})
    server.get(f"/hello/{secret}")
    server.end()
    (line,) = [line for line in lines(server.process) if line["logger"] == "uvicorn.access"]
    assert "[redacted]" in line["message"]
    assert "/hello/" in line["message"]
    for form in (secret, secret.replace("@", "%40"), secret.replace(":", "%3A"), "abcdef"):
        assert form not in server.process.stderr


# --- metrics


def test_an_unreadable_pool_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()

    def broken() -> PoolState:
        raise RuntimeError("closed")

    recorder.metrics.watch_db_pool(broken)
    recorder.metrics.watch_db_pool(lambda: PoolState(3, 2, 1))
    values = {item.metric: item.value for item in recorder.series() if item.metric.startswith("db_pool_")}
    assert sorted(values.values()) == [1, 2, 3]
    recorder.series()
    assert [item.message for item in caplog.records] == ["the connections of a database pool cannot be read"]


def test_the_metrics_of_the_semantic_conventions_are_recorded_as_well_as_the_documents() -> None:
    reader = InMemoryMetricReader()
    metrics = EventMetrics(MeterProvider([reader], shutdown_on_exit=False), semconv=True)
    active = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        active.append([point.value for point in points(reader, "http.server.active_requests")])
        if scope["path"] == "/broken":
            raise KeyError("x")
        scope["route"] = SimpleNamespace(path="/x/{id}")
        await PlainTextResponse("x")(scope, receive, send)

    wrapped = TelemetryMiddleware(app, metrics)
    asyncio.run(drive(wrapped, scheme="https"))
    with pytest.raises(KeyError):
        asyncio.run(drive(wrapped, path="/broken", method="BREW", http_version="9"))

    assert active == [[1], [0, 1]]
    assert [point.value for point in points(reader, "http.server.active_requests")] == [0, 0]
    fine, broken = points(reader, "http.server.request.duration")
    assert dict(fine.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "http.route": "/x/{id}",
        "network.protocol.version": "1.1",
    }
    assert tuple(fine.explicit_bounds) == BOUNDARIES
    assert dict(broken.attributes) == {
        "http.request.method": "_OTHER",
        "http.response.status_code": 500,
        "url.scheme": "http",
        "error.type": "KeyError",
    }
    assert sum(point.value for point in points(reader, "http_requests_total")) == 2


def test_metrics_of_the_semantic_conventions_are_disabled_by_default() -> None:
    reader = InMemoryMetricReader()
    app = TelemetryMiddleware(
        PlainTextResponse("x"), EventMetrics(MeterProvider([reader], shutdown_on_exit=False))
    )
    asyncio.run(drive(app))
    assert points(reader, "http.server.request.duration") == []
    assert len(points(reader, "http_requests_total")) == 1


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    data = reader.get_metrics_data()
    scopes = [
        scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics
    ]
    metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
    return [point for metric in metrics for point in metric.data.data_points]


def test_a_route_template_that_looks_like_a_secret_is_exported_in_metrics_and_spans() -> None:
    """Custom methods have this form: https://google.aip.dev/136."""
    exporter, provider = InMemorySpanExporter(), ScrubbedTracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reader = InMemoryMetricReader()
    metrics = EventMetrics(MeterProvider([reader], shutdown_on_exit=False), semconv=True)
    path = "/v1/token:refresh"
    app = TelemetryMiddleware(
        Starlette(routes=[Route(path, ok)]), metrics, tracer_provider=provider, exclude=()
    )
    asyncio.run(drive(app, path=path))

    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in scrub_metrics(data).resource_metrics for scope in resource.scope_metrics]
    routes = {
        (metric.name, attributes.get("route") or attributes.get("http.route"))
        for scope in scopes
        for metric in scope.metrics
        for attributes in (point.attributes or {} for point in metric.data.data_points)
    }
    names = {name for name, route in routes if route == path}
    assert len(names) == 3, routes
    (span,) = exporter.get_finished_spans()
    assert span.name == f"GET {path}"
    assert (span.attributes or {})["http.route"] == path
    assert (span.attributes or {})["url.path"] == "/v1/token:[redacted]"


def test_an_attribute_named_route_of_another_meter_is_not_a_template() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("other")
    meter.create_counter("calls").add(1, {"route": "/v1/token:refresh"})
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = scrub_metrics(data).resource_metrics[0].scope_metrics
    assert list(scope.metrics[0].data.data_points) == []


def test_a_series_that_begins_during_a_collection_does_not_start_after_its_time() -> None:
    """The SDK reads the time of all points before it collects them."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    meter.create_counter("calls").add(1)
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    (metric,) = scope.metrics
    (point,) = metric.data.data_points
    early = replace(point, time_unix_nano=(point.start_time_unix_nano or 0) - 1)
    resource = replace(
        data.resource_metrics[0],
        scope_metrics=[replace(scope, metrics=[with_points(metric, [early])])],
    )

    (scope,) = scrub_metrics(MetricsData([resource])).resource_metrics[0].scope_metrics
    (corrected,) = scope.metrics[0].data.data_points
    assert corrected == replace(early, start_time_unix_nano=early.time_unix_nano)


# --- shutdown and errors


class Fails:
    """A delivery whose first push raises."""

    exporter = SimpleNamespace(_preferred_temporality=None, _preferred_aggregation=None)

    def __init__(self) -> None:
        self.pushes = 0

    def export(self, _: Any) -> MetricExportResult:
        self.pushes += 1
        if self.pushes == 1:
            raise RecursionError("too deep")
        return MetricExportResult.SUCCESS


def test_a_metric_reader_survives_any_error_and_reports_it(caplog: pytest.LogCaptureFixture) -> None:
    delivery: Any = Fails()
    reader = Reader(delivery, 0.01)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("x").create_counter("x").add(1)
    reader.start()
    assert eventually(lambda: delivery.pushes > 2, 60)
    reader.shutdown()
    assert "the metrics could not be exported" in caplog.text
    delivery.pushes = 0
    assert reader.force_flush() is False
    assert reader.force_flush() is True


@pytest.mark.parametrize("arrived", [True, False, None])
def test_flush_returns_false_if_a_pipeline_fails_or_raises(arrived: bool | None) -> None:
    def force_flush() -> bool:
        if arrived is None:
            raise RuntimeError("no collection")
        return arrived

    delivery: Any = Counted()
    closer = _Closer([(SimpleNamespace(force_flush=force_flush), delivery)])
    assert closer.close(60, end=False) == ([] if arrived else ["all data points"])


class Counted:
    """The counts of a delivery."""

    signal, failures, lost, sending = "metrics", 0, 0, 0


def test_a_late_value_is_scrubbed_and_flush_reports_the_delivery(
    receiver: Receiver, start_process: Start
) -> None:
    script = """
import logging
from poller.events.telemetry import configure_telemetry
telemetry = configure_telemetry()
from opentelemetry import metrics
metrics.get_meter("x").create_counter("hostile").add(1, {"note": "://" * 1000})
logging.getLogger("x").info("://" * 1000)
print(telemetry.flush(60))
"""
    process = start_process([sys.executable, "-c", script], env=environment(receiver))
    assert process.wait() == 0, process
    assert process.stdout.strip() == "True"
    assert any(point.metric == "hostile" for point in receiver.points())


def test_a_text_or_a_number_that_cannot_be_encoded_loses_nothing_else(
    receiver: Receiver, start_process: Start
) -> None:
    script = r"""
import json, logging
from poller.events.telemetry import configure_telemetry
telemetry = configure_telemetry()
from opentelemetry import metrics, trace
lone = json.loads('"\\ud83d"')
log = logging.getLogger("x")
log.warning("harmless")
log.warning("named %s", lone, extra={"field": lone, lone: 1, "deep": {lone: [lone]}, "server.address": lone})
logging.getLogger("y" + lone).warning("of a strange logger")
with trace.get_tracer("x").start_as_current_span("harmless"):
    pass
try:
    with trace.get_tracer("x").start_as_current_span("named " + lone) as span:
        span.set_attribute("server.address", lone)
        span.set_attribute(lone, "x")
        raise ValueError(lone)
except ValueError:
    pass
meter = metrics.get_meter("x")
meter.create_counter("harmless").add(1)
meter.create_counter("huge").add(2**70)
meter.create_counter("marked").add(1, {"field": lone})
meter.create_histogram("wide").record(2**70)
print(telemetry.flush(60))
"""
    process = start_process([sys.executable, "-c", script], env=environment(receiver))
    assert process.wait() == 0, process
    assert process.stdout.strip() == "True", process
    assert {span.name for span in receiver.spans()} == {"harmless", "named \ufffd"}
    (failed,) = [span for span in receiver.spans() if span.name != "harmless"]
    assert failed.events[0].attributes["exception.message"] == "\ufffd"
    assert failed.attributes["server.address"] == "\ufffd"
    bodies = {record.body for record in receiver.records()}
    assert {"harmless", "named \ufffd", "of a strange logger"} <= bodies
    assert {point.metric for point in receiver.points()} == {"harmless"}
    assert "huge has numbers that do not fit 64 bits" in process.stderr


def test_a_span_that_cannot_be_scrubbed_is_not_exported_and_fails_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter, provider = InMemorySpanExporter(), ScrubbedTracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("x").start_span("x")
    span._status = None  # type: ignore[attr-defined]  # noqa: SLF001 - the SDK permits this value
    span.end()
    assert exporter.get_finished_spans() == ()
    assert "a span could not be scrubbed" in caplog.text


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("uvicorn", ["--workers", "2"]),
        ("gunicorn", ["--preload", "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"]),
    ],
)
def test_the_last_interval_of_every_worker_is_exported(
    receiver: Receiver, start_process: Start, command: str, options: list[str]
) -> None:
    """Only the shutdown can push here: the first interval ends after an hour."""
    env = environment(receiver) | {
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_BLRP_SCHEDULE_DELAY": "3600000",
    }
    server = Server(start_process, env, *options, command=command)
    for number in range(8):
        server.get(f"/hello/{number}")
    server.end()
    last = {
        point.resource["service.instance.id"]: point.value
        for point in receiver.points("users_registered_total")
    }
    assert sum(value for value in last.values() if isinstance(value, int | float)) == 8
    assert len(receiver.spans()) == 16


@pytest.mark.parametrize("how", ["exit", "uvicorn"])
def test_losses_at_the_end_are_reported_in_a_single_line(start_process: Start, how: str) -> None:
    (port,) = free_ports(1)
    env = {
        "OBSCURA_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}",
        "OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "2",
        "OBSCURA_EXPORT_TIMEOUT_SECS": "30",
        "OBSCURA_LOG_FORMAT": "json",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_BLRP_SCHEDULE_DELAY": "3600000",
    }
    if how == "uvicorn":
        server = Server(start_process, env, "--workers", "1")
        server.get("/hello/ann")
        server.end()
        process = server.process
    else:
        script = """
from poller.events.telemetry import configure_telemetry
configure_telemetry()
from opentelemetry import trace
from poller.events import EventMetrics
EventMetrics().message_sent()
for _ in range(3):
    trace.get_tracer("x").start_span("x").end()
"""
        process = start_process([sys.executable, "-c", script], env=env)
        assert process.wait() == 0
    messages = [line["message"] for line in lines(process) if "not delivered at the end" in line["message"]]
    assert len(messages) == 1, process
    assert "2 spans" in messages[0] if how == "uvicorn" else "3 spans" in messages[0]
    assert "data points" in messages[0]

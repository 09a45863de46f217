"""A server's telemetry: configuration from the environment, export, forks and shutdown."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from poller.events._export.exporters import build
from poller.events._export.settings import SignalEndpoint, TelemetryError, load
from poller.events.logs import READER
from poller.model.log_format import JsonFormatter, TextFormatter
from poller.model.otlp_endpoint import SIGNALS
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import ACCEPT, HANG, INVALID, Receiver
from tests.bed.otlp import Certificates
from tests.bed.process import ROOT, Process, eventually

Start = Callable[..., Process]

QUICK = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "100",
}
"""Milliseconds between two exports."""
PATIENT = {"OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "120", "OBSCURA_EXPORT_TIMEOUT_SECS": "60"}
"""Long timeouts, so that nothing is abandoned on a machine that stalls."""


def environment(receiver: Receiver, protocol: str = "grpc") -> dict[str, str]:
    """Return the variables of a server, with a log format for programs."""
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    chosen = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"} if protocol == "http" else {}
    return {"OBSCURA_OTLP_ENDPOINT": endpoint, "OBSCURA_LOG_FORMAT": "json", **PATIENT, **chosen}


def lines(process: Process) -> list[dict[str, Any]]:
    """Return every line of the log; each must be JSON."""
    return [json.loads(line) for line in process.stderr.splitlines()]


class Server:
    """The instrumented server, started by uvicorn's command line."""

    def __init__(self, start: Start, env: Mapping[str, str], *options: str, command: str = "uvicorn") -> None:
        (port,) = free_ports(1)
        where = ["--host", LOOPBACK, "--port", str(port)]
        if command == "gunicorn":
            where = ["--bind", f"{LOOPBACK}:{port}"]
        self.url = f"http://{LOOPBACK}:{port}"
        self.process = start(
            [sys.executable, "-m", command, "tests.bed.observed:app", *where, *options],
            env=dict(env),
            cwd=ROOT,
        )
        assert eventually(lambda: _listens(port) or not self.process.running, 90)
        assert self.process.running, self.process

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send(number)
        self.process.wait(120)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_three_signals_arrive_correlated_and_the_last_data_at_sigterm(
    receiver: Receiver, start_process: Start, protocol: str
) -> None:
    server = Server(start_process, environment(receiver, protocol))
    request_id = server.get("/hello/ann").headers["x-request-id"]
    server.get("/hello/bob")
    server.get("/broken")
    server.get("/nope")
    with connect(server.url.replace("http", "ws") + "/echo", proxy=None) as client:
        client.send("x")
        assert client.recv() == "x"
    server.end()

    # Every request is a single trace: a root span and its descendants.
    roots = {span.trace_id: span for span in receiver.spans() if span.kind == "server"}
    assert sorted(span.name for span in roots.values()) == [
        "GET",
        "GET /broken",
        "GET /hello/{name}",
        "GET /hello/{name}",
        "websocket_session",
    ]
    inner = receiver.spans("greet_user")
    assert [roots[span.trace_id].span_id for span in inner] == [span.parent_span_id for span in inner]
    assert len(inner) == 2
    assert request_id in [span.attributes["request.id"] for span in roots.values()]
    assert {span.parent_span_id for span in roots.values()} == {""}

    # The last export contains everything.
    last = {
        (point.metric, *sorted(point.attributes.values(), key=str)): point.value
        for point in receiver.points()
    }
    assert last["http_requests_total", "/hello/{name}", "200", "GET"] == 2
    assert last["http_requests_total", "/broken", "500", "GET"] == 1
    assert last["http_requests_total", "404", "GET", "unmatched"] == 1
    assert last["http_requests_total", "/echo", "101", "GET"] == 1
    assert last["users_registered_total",] == 2
    assert last["websocket_active_connections",] == 0
    (durations,) = {p.value.bounds for p in receiver.points("http_request_duration_seconds")}  # type: ignore[union-attr]
    assert durations[0] == 0.005

    # Every line has a trace and a span, also uvicorn's lines, and is exported unchanged.
    written = lines(server.process)
    assert all(
        {"timestamp", "severity", "logger", "message", "trace_id", "span_id"} <= line.keys()
        for line in written
    )
    assert Counter(line["logger"] for line in written)["uvicorn.access"] == 4
    spans = {span.span_id: span for span in receiver.spans()}
    for line in written:
        if (
            line["logger"] in ("uvicorn.access", "observed")
            or "exception" in line
            or "WebSocket" in line["message"]
        ):
            assert spans[line["span_id"]].trace_id == line["trace_id"], line
        else:
            assert line["trace_id"] in ("", *roots), line
    exported = [(r.scope, r.body, r.trace_id, r.span_id) for r in receiver.records()]
    assert Counter(exported) == Counter(
        (line["logger"], line["message"], line["trace_id"], line["span_id"]) for line in written
    )
    (record,) = [r for r in receiver.records() if r.attributes.get("exception.type") == "RuntimeError"]
    assert record.severity_text == "ERROR"
    assert "broken on purpose" in str(record.attributes["exception.stacktrace"])

    resources = [s.resource for s in receiver.spans()] + [p.resource for p in receiver.points()]
    (resource,) = {
        tuple(sorted(attributes.items()))
        for attributes in (*resources, *(r.resource for r in receiver.records()))
    }
    assert ("service.name", "observed") in resource
    assert ("service.version", "1.2.3") in resource
    assert "service.instance.id" in dict(resource)


def test_without_an_endpoint_there_are_only_logs_and_they_are_correlated(
    start_process: Start,
) -> None:
    server = Server(start_process, {"OBSCURA_LOG_FORMAT": "json"})
    server.get("/hello/ann")
    server.end()

    written = lines(server.process)
    assert written[0]["message"] == "no OTLP endpoint is set: logs only"
    (greeting,) = [line for line in written if line["message"] == "greeting"]
    (access,) = [line for line in written if line["logger"] == "uvicorn.access"]
    assert greeting["length"] == 3
    assert len(greeting["trace_id"]) == 32
    assert greeting["trace_id"] == access["trace_id"]
    assert access["message"] == '- - "GET /hello/ann HTTP/1.1" 200'


def test_requests_that_are_not_sampled_are_logged_and_counted(
    receiver: Receiver, start_process: Start
) -> None:
    server = Server(start_process, environment(receiver) | {"OBSCURA_TRACE_SAMPLING_RATIO": "0"})
    server.get("/hello/ann")
    httpx.get(f"{server.url}/hello/bob", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, timeout=60)
    server.end()

    # The parent decides if there is a parent.
    assert {span.trace_id for span in receiver.spans()} == {"a" * 32}
    assert receiver.points("users_registered_total")[-1].value == 2
    assert {len(line["trace_id"]) for line in lines(server.process) if line["message"] == "greeting"} == {32}


def test_workers_have_distinct_instance_ids_even_if_the_environment_sets_an_id(
    receiver: Receiver, start_process: Start
) -> None:
    env = environment(receiver) | QUICK | {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-1"}
    server = Server(start_process, env, "--workers", "2")
    receiver.wait_until(lambda: len(_instances(receiver)) == 2, 120)
    for number in range(8):
        server.get(f"/hello/{number}")
    receiver.wait_until(lambda: sum(_registered(receiver).values()) == 8, 120)
    server.end()

    assert all(str(name).startswith("pod-1.") for name in _instances(receiver))
    assert sum(_registered(receiver).values()) == 8


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_the_last_interval_arrives_from_uvicorn_without_lifespan(
    receiver: Receiver, start_process: Start, options: list[str]
) -> None:
    # No interval ends before the server does.
    env = environment(receiver) | {"OBSCURA_METRICS_EXPORT_INTERVAL_SECS": "3000"}
    server = Server(start_process, env, *options, "--lifespan", "off")
    for number in range(8):
        server.get(f"/hello/{number}")
    assert _registered(receiver) == {}
    server.end()

    assert sum(_registered(receiver).values()) == 8
    assert len(receiver.spans()) == 16
    if not options:
        # uvicorn ends by the signal, with telemetry as well.
        assert server.process.wait() == -signal.SIGTERM


def test_a_collector_that_hangs_does_not_keep_uvicorn_without_lifespan(
    receiver: Receiver, start_process: Start
) -> None:
    receiver.answer = HANG
    env = environment(receiver) | {"OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "1"}
    server = Server(start_process, env, "--workers", "2", "--lifespan", "off")
    server.get("/hello/1")
    server.end()
    assert "not delivered at the end" in server.process.stderr


def test_workers_of_gunicorn_that_are_forked_after_it_was_configured_count_for_themselves(
    receiver: Receiver, start_process: Start
) -> None:
    env = environment(receiver) | QUICK
    options = ["--preload", "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"]
    server = Server(start_process, env, *options, command="gunicorn")
    receiver.wait_until(lambda: len(_instances(receiver)) == 3, 120)
    for number in range(8):
        server.get(f"/hello/{number}")
    receiver.wait_until(lambda: sum(_registered(receiver).values()) == 8, 120)
    server.end()

    assert sum(_registered(receiver).values()) == 8
    assert len({span.span_id for span in receiver.spans()}) == len(receiver.spans()) == 16
    assert all("trace_id" in line for line in lines(server.process))


def _instances(receiver: Receiver) -> set[object]:
    return {point.resource["service.instance.id"] for point in receiver.points("users_registered_total")}


def _registered(receiver: Receiver) -> dict[object, int]:
    """Return the last value of each instance."""
    return {
        point.resource["service.instance.id"]: int(point.value)  # type: ignore[arg-type]  # the value of a counter
        for point in receiver.points("users_registered_total")
    }


FORKS = """
import logging, os, sys, threading
from poller.events.telemetry import configure_telemetry
telemetry = configure_telemetry("forks", instance="given")
from opentelemetry import trace
from poller.events import EventMetrics
metrics, tracer, log = EventMetrics(), trace.get_tracer("x"), logging.getLogger("forks")

def work(name, count):
    for _ in range(count):
        metrics.user_registered()
        with tracer.start_as_current_span(name):
            log.info(name)

work("before", 5)
stop = threading.Event()
def busy():
    # Pushes without a pause, so that forks come in the midst of pushes.
    while not stop.wait(0.001):
        work("busy", 1)
        telemetry.flush(60)
thread = threading.Thread(target=busy)
thread.start()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        work(f"child {number}", 2)
        os._exit(0 if telemetry.shutdown(60) else 1)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
stop.set()
thread.join()
print(codes, telemetry.shutdown(60), flush=True)
"""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_fork_during_an_export_loses_nothing_and_duplicates_nothing(
    receiver: Receiver, start_process: Start, protocol: str
) -> None:
    process = start_process([sys.executable, "-c", FORKS], env=environment(receiver, protocol))
    assert process.wait(170) == 0, process
    assert process.stdout.strip() == f"{[0] * 8} True", process

    names = Counter(span.name for span in receiver.spans())
    busy = names.pop("busy", 0)
    assert names == {"before": 5} | {f"child {number}": 2 for number in range(8)}
    assert len({span.span_id for span in receiver.spans()}) == len(receiver.spans())
    records = Counter(record.body for record in receiver.records())
    assert records == names | Counter(busy=busy)
    registered = _registered(receiver)
    assert registered.pop("given") == 5 + busy
    assert sorted(registered.values()) == [2] * 8
    by_name = {span.name: span.resource["service.instance.id"] for span in receiver.spans()}
    assert len(set(by_name.values())) == 9


def test_a_fork_while_the_collector_hangs_ends_and_the_interrupted_export_arrives_later(
    receiver: Receiver, start_process: Start, tmp_path: Path
) -> None:
    """The export has no timeout, so only the fork can have ended it."""
    script = """
import os, threading
from poller.events.telemetry import configure_telemetry
telemetry = configure_telemetry()
from opentelemetry import trace
tracer = trace.get_tracer("x")
tracer.start_span("before").end()
flush = threading.Thread(target=telemetry.flush, args=(1000,))
flush.start()
print("pushing", flush=True)
open(os.environ["GO"]).read()  # waits for a writer
child = os.fork()
if child == 0:
    os._exit(0)
print("forked", os.waitpid(child, 0)[1], flush=True)
flush.join()
"""
    receiver.answer = HANG
    go = tmp_path / "go"
    os.mkfifo(go)
    env = environment(receiver) | {"OBSCURA_EXPORT_TIMEOUT_SECS": "100000", "GO": str(go)}
    process = start_process([sys.executable, "-c", script], env=env)
    receiver.wait_for_attempts(1, 60, signal="traces")
    go.write_text("go")
    process.wait_for_line("forked 0", 120)
    receiver.answer = ACCEPT
    assert process.wait(120) == 0, process
    assert [span.name for span in receiver.spans()] == ["before"]


def test_the_end_of_a_process_does_not_wait_for_a_collector_that_hangs(
    receiver: Receiver, start_process: Start
) -> None:
    """The timeout of an export is a day, so only the timeout of the shutdown can have ended it."""
    receiver.answer = HANG
    env = environment(receiver) | {"OBSCURA_EXPORT_TIMEOUT_SECS": "86400"}
    server = Server(start_process, env | {"OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "1"})
    server.get("/hello/ann")
    server.end()

    assert not server.process.running
    assert all(receiver.requests(signal) == [] for signal in SIGNALS)


def test_a_failure_and_the_recovery_of_the_collector_are_each_logged_once(
    receiver: Receiver, start_process: Start
) -> None:
    receiver.answer = INVALID
    others = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    server = Server(start_process, environment(receiver) | QUICK | others)
    receiver.wait_for_attempts(5, 120)
    server.process.wait_for_line("metrics are not delivered: .*INVALID_ARGUMENT", 120)
    receiver.answer = ACCEPT
    server.process.wait_for_line("metrics are delivered again", 120)
    server.get("/hello/ann")
    server.end()

    delivery = "poller.events._export.delivery"
    messages = [line["message"] for line in lines(server.process) if line["logger"] == delivery]
    # On a machine that stalls there may be a second outage, but never the same message twice in a row.
    changes = [message.partition(":")[0].partition(" after")[0] for message in messages]
    assert (
        changes
        == (["metrics are not delivered", "metrics are delivered again"] * len(changes))[: len(changes)]
    )
    assert receiver.spans() == []
    assert receiver.records() == []


def test_the_spans_lost_in_an_outage_are_counted_when_it_ends(
    receiver: Receiver, start_process: Start
) -> None:
    receiver.answers = {"traces": INVALID}
    env = environment(receiver) | {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    server = Server(start_process, env)
    server.get("/hello/ann")
    server.process.wait_for_line("traces are not delivered: .*INVALID_ARGUMENT", 120)
    receiver.answers = {}
    server.get("/hello/bob")
    line = server.process.wait_for_line(r"traces are delivered again after \d+ s; lost: (\d+) spans?", 120)
    server.end()

    attempts = receiver.attempts("traces")
    lost = [span for attempt in attempts if not attempt.answer.accepts for span in attempt.spans()]
    assert int(line.group(1)) == len(lost) > 0


def test_a_redirect_is_a_failure_and_not_a_success(start_process: Start) -> None:
    """OpenTelemetry's exporter for HTTP treats a redirect as a success."""
    script = """
import http.server, threading, sys
class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(307)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
threading.Thread(target=server.serve_forever, daemon=True).start()
import os
os.environ["OBSCURA_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}/v1/traces"
from poller.events.telemetry import configure_telemetry
telemetry = configure_telemetry()
from opentelemetry import trace
trace.get_tracer("x").start_span("x").end()
print(telemetry.shutdown(60))
"""
    process = start_process([sys.executable, "-c", script], env={"OBSCURA_EXPORT_TIMEOUT_SECS": "1"})
    assert process.wait() == 0, process
    assert process.stdout.strip() == "False"
    assert "traces are not delivered: " in process.stderr


def test_an_uncaught_exception_is_logged_and_all_signals_are_flushed(
    receiver: Receiver, start_process: Start
) -> None:
    script = """
from poller.events.telemetry import configure_telemetry
configure_telemetry()
from opentelemetry import trace
with trace.get_tracer("x").start_as_current_span("main"):
    raise KeyError("token=abcdef")
"""
    process = start_process([sys.executable, "-c", script], env=environment(receiver))
    assert process.wait() == 1

    (line,) = lines(process)
    assert line["severity"] == "CRITICAL"
    assert "KeyError: 'token=[redacted]" in line["exception"]
    (span,) = receiver.spans()
    assert span.status == "error"
    assert [record.severity_text for record in receiver.records()] == ["FATAL"]


def test_a_later_configuration_of_logging_loses_no_line(start_process: Start, tmp_path: Path) -> None:
    """Litestar configures logging when an application is created, and uvicorn when a program runs it."""
    script = """
import logging, logging.config, sys
from poller.events.telemetry import configure_telemetry
configure_telemetry()
from litestar import Litestar
Litestar([])
logging.getLogger("litestar").info("of litestar")
logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(message)s %(kept)s"}},
    "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"},
                 "file": {"class": "logging.FileHandler", "formatter": "plain", "filename": sys.argv[1]}},
    "loggers": {"mine": {"handlers": ["err", "file"], "propagate": False, "level": "INFO"}},
    "root": {"handlers": ["err"], "level": "ERROR"},
})
try:
    raise ValueError("from 203.0.113.7")
except ValueError:
    extra = {"client_ip": "203.0.113.7", "kept": "ok"}
    logging.getLogger("mine").exception("of mine %s", "token=abcdef", extra=extra)
logging.getLogger("other").info("of others")
logging.getLogger("opentelemetry").info("not exported")
"""
    file = tmp_path / "log"
    process = start_process([sys.executable, "-c", script, str(file)], env={"OBSCURA_LOG_FORMAT": "json"})
    assert process.wait() == 0, process

    written = lines(process)
    assert process.stdout == ""
    assert [line["message"] for line in written][-2:] == ["of mine token=[redacted]", "of others"]
    assert "of litestar" in [line["message"] for line in written]
    assert written[-2]["kept"] == "ok"
    assert "client_ip" not in written[-2]
    in_the_file = file.read_text(encoding="utf-8")
    assert in_the_file.startswith("of mine token=[redacted] ok\nTraceback")
    assert in_the_file.endswith("ValueError: from [redacted]\n")


def test_a_second_call_changes_nothing_and_another_provider_is_an_error(
    start_process: Start,
) -> None:
    script = """
import logging
from opentelemetry import baggage, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from poller.events.telemetry import TelemetryError, configure_telemetry
import sys
if len(sys.argv) > 1:
    trace.set_tracer_provider(TracerProvider())
    try:
        configure_telemetry()
    except TelemetryError as error:
        print(error)
else:
    first = configure_telemetry()
    assert configure_telemetry("other") is first
    assert len(logging.getLogger().handlers) == 1
    carrier = {}
    with trace.get_tracer("x").start_as_current_span("x"):
        propagate.inject(carrier, baggage.set_baggage("user", "ann"))
    print(sorted(carrier))
    assert first.shutdown() and first.shutdown()
"""
    for argument, expected in (
        ([], "['traceparent']"),
        (["x"], "another tracer or meter provider is already set"),
    ):
        process = start_process([sys.executable, "-c", script, *argument])
        assert process.wait() == 0, process
        assert expected in process.stdout


def test_baggage_is_propagated_if_a_variable_requests_it(start_process: Start) -> None:
    script = """
from opentelemetry import baggage, propagate
from poller.events.telemetry import configure_telemetry
configure_telemetry()
carrier = {}
propagate.inject(carrier, baggage.set_baggage("k", "v"))
print(sorted(carrier))
"""
    process = start_process([sys.executable, "-c", script], env={"OTEL_PROPAGATORS": "tracecontext,baggage"})
    assert process.wait() == 0, process
    assert process.stdout.strip() == "['baggage']"


def test_no_module_loads_the_sdk_or_the_daemons_libraries_when_it_is_imported() -> None:
    """Except modules that document it, and that are imported only after telemetry is configured."""
    folder = ROOT / "poller" / "events"
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    knowing = {path for path, text in texts.items() if "It imports the SDK" in text}
    assert {path.stem for path in knowing} == {"providers", "processors", "reader", "views"}
    tools = {folder / "testing.py", folder / "fixtures.py"}
    imports = "; ".join(
        f"import {'.'.join(path.relative_to(ROOT).with_suffix('').parts)}"
        for path in texts.keys() - knowing - tools
        if path.name != "__init__.py"
    )
    heavy = (
        "opentelemetry.sdk",
        "opentelemetry.exporter",
        "grpc",
        "psycopg",
        "apscheduler",
        "pydantic",
        "typer",
    )
    code = f"import sys; {imports}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_record_is_a_line_of_json() -> None:
    circle: dict[Any, Any] = {"token": "abc", ("a", 1): 2}
    circle["again"] = [circle]
    odd = {
        "nan": math.nan,
        "circle": circle,
        "path": Path("/x?token=abc"),
        "message": "kept",
        "deep": [{"n": math.inf}],
        "lines": 3,
    }
    record = logging.makeLogRecord({"msg": "a\n%s\n", "args": ("b",), "levelname": "INFO", "name": "x"})
    vars(record).update({name: value for name, value in odd.items() if name != "message"})

    line = json.loads(JsonFormatter(READER).format(record), parse_constant=pytest.fail)
    assert line["message"] == "a\nb"
    assert line["path"] == "/x?[redacted]"
    assert line["nan"] == "nan"
    assert line["lines"] == 3
    assert "abc" not in json.dumps(line)
    text = TextFormatter(READER).format(record)
    assert "\n" not in text
    assert "a\\nb" in text


# --- settings


def targets(**environ: str) -> dict[str, tuple[str, str, float]]:
    return {
        signal: (target.url, target.protocol, target.timeout)
        for signal, target in load(environ).targets.items()
    }


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OBSCURA_OTLP_ENDPOINT": "http://lgtm:4317"}, ("http://lgtm:4317", "grpc", 10.0)),
        (
            {"OBSCURA_TELEMETRY_OTLP_ENDPOINT": "https://h/x"},
            ("https://h/x/v1/traces", "http/protobuf", 10.0),
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://h/x"}, ("https://h/x", "http/protobuf", 10.0)),
        ({"OBSCURA_OTLP_ENDPOINT": "https://h/"}, ("https://h", "grpc", 10.0)),
        ({"OBSCURA_OTLP_ENDPOINT": "http://h:4318"}, ("http://h:4318/v1/traces", "http/protobuf", 10.0)),
        ({"OBSCURA_OTLP_ENDPOINT": "http://h/v1/metrics"}, ("http://h/v1/traces", "http/protobuf", 10.0)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "h:4317"}, ("h:4317", "grpc", 10.0)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "unix:///run/c"}, ("unix:///run/c", "grpc", 10.0)),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318/a/", "OTEL_EXPORTER_OTLP_TIMEOUT": "3"},
            ("http://h:4318/a/v1/traces", "http/protobuf", 3.0),
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/x",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://i",
            },
            ("http://h:4318/x", "http/protobuf", 10.0),
        ),
        (
            {
                "OBSCURA_OTLP_ENDPOINT": "http://h:9",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://i",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OBSCURA_EXPORT_TIMEOUT_SECS": "2",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            },
            ("http://h:9/v1/traces", "http/protobuf", 2.0),
        ),
    ],
)
def test_the_endpoint_of_traces_is_resolved(
    environ: dict[str, str], expected: tuple[str, str, float]
) -> None:
    assert targets(**environ)["traces"] == expected


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"])
def test_a_standard_timeout_that_means_milliseconds_is_refused(name: str) -> None:
    endpoint = {"OBSCURA_OTLP_ENDPOINT": "http://h:4317"}
    with pytest.raises(TelemetryError, match=f"{name}: '10000' is read as seconds, .*; write 10$"):
        load({**endpoint, name: "10000"})
    assert load({**endpoint, name: "999"}).targets["logs"].timeout == 999


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ("Bearer sesame", "header 1 is not name=value; write one like authorization=Bearer%20TOKEN"),
        ("x-a=1,sesame", "header 2 is not name=value"),
        (
            "x-a=1,authorization=sesam%C3%A9",
            "the value of header 2 has a control character or one that is not ASCII",
        ),
        ("authorization=sesame%0A=open", "the value of header 1 has a control character"),
        (f"authorization={'sesame' * 2_000}", "the value of header 1 has 12,000 .*; write at most 8,192"),
    ],
)
def test_a_header_that_cannot_be_sent_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, protocol: Any, headers: str, message: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    with pytest.raises(TelemetryError, match=f"^OTEL_EXPORTER_OTLP_HEADERS: {message}") as caught:
        build("traces", SignalEndpoint("http://127.0.0.1:1", protocol, 1.0))
    assert "sesam" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "sent"), [("authorization=Bearer%20sesame", "Bearer sesame"), ("x-a=1", None)]
)
def test_netrc_is_not_read(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, headers: str, sent: str | None
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    exporter = build("traces", SignalEndpoint(f"{receiver.http_endpoint}/v1/traces", "http/protobuf", 60.0))
    exporter.export([])
    exporter.shutdown()
    assert receiver.attempts("traces")[0].headers.get("authorization") == sent


def test_signals_are_switched_off_by_the_standard_variables() -> None:
    endpoint = {"OBSCURA_OTLP_ENDPOINT": "http://h:4317"}
    assert set(targets(**endpoint)) == {"traces", "metrics", "logs"}
    assert set(targets(**endpoint, OTEL_LOGS_EXPORTER="none")) == {"traces", "metrics"}
    assert targets(**endpoint, OTEL_SDK_DISABLED="true") == {}
    assert targets(OBSCURA_OTLP_ENDPOINT="") == {}
    assert set(targets(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://h:4317")) == {"metrics"}


def test_a_limit_that_the_sdk_cannot_be_imported_with_is_a_configuration_error() -> None:
    message = "^OTEL_SPAN_LINK_COUNT_LIMIT: 'many' is not a whole number; write one like 128"
    with pytest.raises(TelemetryError, match=message):
        load({"OTEL_SPAN_LINK_COUNT_LIMIT": "many"})


def test_the_servers_variables_override_the_standard_variables() -> None:
    settings = load(
        {
            "OBSCURA_TELEMETRY_TRACE_SAMPLING_RATIO": "10%",
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
            "OBSCURA_TELEMETRY_METRICS_EXPORT_INTERVAL_SECS": "7",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OBSCURA_TELEMETRY_LOG_FORMAT": "JSON",
            "OBSCURA_LOG_LEVEL": "debug",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=a,service.namespace=b%20c",
            "OTEL_SERVICE_NAME": "d",
            "OTEL_PROPAGATORS": "b3",
        }
    )
    assert (settings.sampling_ratio, settings.metrics_interval) == (0.1, 7.0)
    assert (settings.log_format, settings.log_level, settings.propagators_chosen) == ("json", "debug", True)
    assert settings.resource == {"service.name": "d", "service.namespace": "b c"}


def test_the_standard_variables_apply_as_specified() -> None:
    assert load({"OTEL_TRACES_SAMPLER_ARG": "0.5"}).sampling_ratio == 0.5
    assert load({"OTEL_TRACES_SAMPLER": "always_off"}).sampling_ratio is None
    assert load({"OTEL_METRIC_EXPORT_INTERVAL": "1500"}).metrics_interval == 1.5
    assert load({}).sampling_ratio == 1.0


def test_every_problem_is_reported_at_once_without_secrets() -> None:
    with pytest.raises(TelemetryError) as raised:
        load(
            {
                "OBSCURA_OTLP_ENDPOINT": "http://user:hunter2@h:4317",
                "OBSCURA_TRACE_SAMPLING_RATIO": "2",
                "OBSCURA_METRICS_EXPORT_INTERVAL_SECS": "soon",
                "OBSCURA_EXPORT_TIMEOUT_SECS": "-1",
                "OBSCURA_LOG_FORMAT": "xml",
                "OBSCURA_LOG_LEVEL": "loud",
                "OTEL_TRACES_EXPORTER": "zipkin",
            }
        )
    problems = raised.value.problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "OTEL_TRACES_EXPORTER",
        "OBSCURA_EXPORT_TIMEOUT_SECS",
        "OBSCURA_OTLP_ENDPOINT",
        "OBSCURA_TRACE_SAMPLING_RATIO",
        "OBSCURA_METRICS_EXPORT_INTERVAL_SECS",
        "OBSCURA_LOG_FORMAT",
        "OBSCURA_LOG_LEVEL",
    ]
    assert all("write" in problem for problem in problems)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"OBSCURA_OTLP_ENDPOINT": "h:4317"},
            "has no scheme; write http://h:4317 for plain text or https://h:4317 for TLS",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://h"},
            "has an unknown scheme; write http:// for plain text or https:// for TLS",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "u:hunter2@h:4317"}, "has a user name, which gRPC cannot send"),
        ({"OBSCURA_OTLP_ENDPOINT": "http://u:hunter2/x@h:4318"}, r"'http://\*\*\*@h:4318' is not a URL"),
        ({"OBSCURA_OTLP_ENDPOINT": "http://u/hunter2@h:4318"}, "has an @ after its host; write special"),
        ({"OBSCURA_OTLP_ENDPOINT": "http://"}, "has no host"),
        ({"OBSCURA_OTLP_ENDPOINT": "http://h:port"}, "is not a URL"),
        (
            {"OBSCURA_OTLP_ENDPOINT": "http://h", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "'http/json' is not one of grpc, http/protobuf; write one like http/protobuf",
        ),
    ],
)
def test_an_unusable_endpoint_is_reported_with_the_fix(environ: dict[str, str], message: str) -> None:
    with pytest.raises(TelemetryError, match=message) as raised:
        load(environ)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "protocol", "unsent"),
    [
        ("http://h:4317/otlp", "grpc", "'http://h:4317/otlp' has a path, which gRPC cannot send"),
        ("http://h:4317?key=hunter2", "", "'http://h:4317?[redacted]' has a query, which"),
        (
            "http://h:4317/otlp?key=hunter2",
            "grpc",
            "'http://h:4317/otlp?[redacted]' has a path and a query, ",
        ),
    ],
)
def test_parts_of_an_endpoint_that_grpc_cannot_send_are_a_single_warning(
    endpoint: str, protocol: str, unsent: str, start_process: Start
) -> None:
    script = "from poller.events.telemetry import configure_telemetry; configure_telemetry()"
    env = {"OBSCURA_OTLP_ENDPOINT": endpoint, "OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "0.1"}
    process = start_process(
        [sys.executable, "-c", script], env=env | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    )
    assert process.wait() == 0, process
    (line,) = [line for line in process.stderr.splitlines() if "gRPC cannot send" in line]
    assert f"OBSCURA_OTLP_ENDPOINT: {unsent}" in line
    assert "write http://h:4317, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in line
    assert "hunter2" not in process.stderr


def test_a_target_shows_no_secret() -> None:
    target = SignalEndpoint("https://user:hunter2@h:4318/v1/traces?key=hunter2", "http/protobuf", 10)
    assert "hunter2" not in f"{target} {target!r}"
    assert target.plain_text is False


def test_a_missing_certificate_is_an_error(start_process: Start) -> None:
    script = "from poller.events.telemetry import configure_telemetry; configure_telemetry()"
    for endpoint in ("https://127.0.0.1:4317", "https://127.0.0.1:4318"):
        env = {"OBSCURA_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"}
        process = start_process([sys.executable, "-c", script], env=env)
        assert process.wait() == 1
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE: '/nowhere/ca.pem' cannot be read" in process.stderr


@pytest.mark.parametrize("port", [4317, 4318])
@pytest.mark.parametrize(("kind", "why"), [("pipe", "it is a pipe"), ("large", "it is larger than 1 MiB")])
def test_a_certificate_that_is_a_pipe_or_too_large_is_an_error(
    start_process: Start, tmp_path: Path, port: int, kind: str, why: str
) -> None:
    file = tmp_path / "ca.pem"
    os.mkfifo(file) if kind == "pipe" else file.write_bytes(bytes(2**20 + 1))
    script = "from poller.events.telemetry import configure_telemetry; configure_telemetry()"
    env = {
        "OBSCURA_OTLP_ENDPOINT": f"https://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file),
    }
    process = start_process([sys.executable, "-c", script], env=env)
    assert process.wait() == 1
    assert f"OTEL_EXPORTER_OTLP_CERTIFICATE: {str(file)!r} cannot be read: {why}" in process.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_tls_with_certificates_of_the_standard_variables(
    certificates: Certificates, start_process: Start, protocol: str
) -> None:
    script = """
from poller.events.telemetry import configure_telemetry
telemetry = configure_telemetry()
from opentelemetry import trace
trace.get_tracer("x").start_span("x").end()
print(telemetry.shutdown(60))
"""
    files = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.ca),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates.client),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificates.client_key),
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=abc",
    }
    with Receiver(tls=certificates.mtls) as receiver:
        process = start_process([sys.executable, "-c", script], env=environment(receiver, protocol) | files)
        assert process.wait(120) == 0, process
        assert process.stdout.strip() == "True", process
        assert [span.name for span in receiver.spans()] == ["x"]
        assert {request.headers["x-key"] for request in receiver.requests("traces")} == {"abc"}

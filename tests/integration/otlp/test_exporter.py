"""Export of metrics to a real receiver over real sockets, and log records about failures."""

from __future__ import annotations

import logging
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation

from poller.model.errors import ConfigError
from poller.model.otlp_endpoint import Endpoint, resolve
from poller.model.retry import RetryConfig
from poller.model.text import install
from poller.otlp import request as otlp_request
from poller.otlp.exporter import MetricExporter, resource
from poller.otlp.sender import build_sender
from poller.otlp.sending_queue import SendingQueue
from poller.receiver.receiver import (
    ACCEPT,
    HANG,
    INVALID,
    CannedAnswer,
    Distribution,
    Point,
    Receiver,
    throttle,
)
from tests.bed.cleanup import closing_all
from tests.bed.otlp import Certificates, endpoint_of
from tests.bed.process import eventually

Open = Callable[..., MetricExporter]
PROTOCOLS = ["grpc", "http/protobuf"]


class Log(logging.Handler):
    """Log records at the root logger, where the program has its handler.

    caplog would also record loggers that do not propagate, like those of the exporters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def text(self) -> str:
        formatter = logging.Formatter()
        return "\n".join(f"{formatter.format(record)} {vars(record)}" for record in self.records)


@pytest.fixture
def log() -> Iterator[Log]:
    root, handler = logging.getLogger(), Log()
    before = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


@pytest.fixture
def open_push() -> Iterator[Open]:
    def start(endpoint: Endpoint, **arguments: Any) -> MetricExporter:
        described = resource("obscura-poller", "poller-0", "1.2.3")
        queue = SendingQueue(None, max_size=2**20, max_age=3600.0)
        try:
            return MetricExporter(endpoint, described, queue, **{"timeout": 60.0, **arguments})
        except ConfigError:
            queue.close()
            raise

    with closing_all(start, lambda push: push.shutdown(0.1)) as open_push:
        yield open_push


def gauge(
    push: MetricExporter, name: str, *observed: Observation, unit: str = "{thing}"
) -> list[Observation]:
    """Create a gauge that exports the contents of the returned list at the time of a collection."""
    observations = list(observed)

    def observe(_: CallbackOptions) -> list[Observation]:
        return list(observations)

    push.meter.create_observable_gauge(name, [observe], unit=unit, description=f"Things of {name}.")
    return observations


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gauge_arrives_exactly_as_it_is_defined(receiver: Receiver, open_push: Open, protocol: str) -> None:
    push = open_push(endpoint_of(receiver, protocol))
    gauge(push, "pending_messages_total", Observation(2**63 - 1, {"state": "new"}), unit="{message}")

    assert push.flush(60)
    assert push.last_export_ok is True

    (point,) = receiver.points()
    assert (point.metric, point.unit, point.description, point.kind) == (
        "pending_messages_total", "{message}", "Things of pending_messages_total.", "gauge",
    )  # fmt: skip
    assert point.value == 2**63 - 1
    assert isinstance(point.value, int)
    assert point.attributes == {"state": "new"}
    assert point.scope == "poller"
    assert receiver.requests()[0].protocol == ("grpc" if protocol == "grpc" else "http")


def test_the_resource_is_the_configured_resource_and_never_random(
    receiver: Receiver, open_push: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod%20eu,service.instance.id=x"
    )
    push = open_push(endpoint_of(receiver, "grpc"))
    gauge(push, "users_total", Observation(1))
    push.flush(60)
    attributes = receiver.points()[0].resource
    assert attributes["service.name"] == "obscura-poller"
    assert attributes["service.version"] == "1.2.3"
    assert attributes["service.instance.id"] == "poller-0"
    assert attributes["deployment.environment.name"] == "prod eu"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_and_gzip_come_from_the_standard_variables(
    receiver: Receiver, open_push: Open, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sesame,x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    push = open_push(endpoint_of(receiver, protocol))
    gauge(push, "users_total", Observation(1))
    assert push.flush(60)
    headers = receiver.requests()[0].headers
    assert headers["authorization"] == "Bearer sesame"
    assert headers["x-tenant"] == "blue"
    if protocol == "http/protobuf":  # gRPC's server removes the encoding before the receiver
        assert headers["content-encoding"] == "gzip"
    assert receiver.points()[0].value == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mutual_tls_takes_its_files_from_the_standard_variables(
    open_push: Open, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(certificates.client))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(certificates.client_key))
    with Receiver(tls=certificates.mtls) as receiver:
        push = open_push(endpoint_of(receiver, protocol))
        gauge(push, "users_total", Observation(7))
        assert push.flush(60)
        assert [point.value for point in receiver.points()] == [7]
        push.shutdown(5)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_with_an_untrusted_certificate_gets_nothing(
    open_push: Open, certificates: Certificates, protocol: str
) -> None:
    # No second attempt may run when the receiver stops: Python leaves the socket of a client that is reset
    # just before its TLS handshake to the garbage collector, whose warning would fail a later test.
    retry = RetryConfig(3600.0, 3600.0)
    with Receiver(tls=certificates.tls) as receiver:
        push = open_push(endpoint_of(receiver, protocol), retry=retry)
        gauge(push, "users_total", Observation(7))
        assert not push.flush(1)
        assert eventually(lambda: push.last_export_ok is False)
        assert receiver.attempts() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_file_that_is_missing_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/nowhere/ca.pem")
    endpoint = resolve(
        "https://127.0.0.1:4317", "POLLER_OTLP_ENDPOINT", "grpc" if protocol == "grpc" else None
    )
    with pytest.raises(ConfigError) as caught:
        build_sender(endpoint, 1.0)
    assert str(caught.value) == (
        "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE: '/nowhere/ca.pem' cannot be read: No such file or directory"
    )


NO_THREAD = """
import logging, pathlib, resource, sys, threading
import grpc
from poller.model.otlp_endpoint import resolve
from poller.otlp.exporter import MetricExporter
from poller.otlp.exporter import resource as described
from poller.otlp.sending_queue import SendingQueue

class Enough(logging.Handler):
    def emit(self, record):
        if record.exc_info and record.exc_info[0] is RuntimeError:
            threading.stack_size(0)
            refused.set()

refused = threading.Event()
logging.getLogger().addHandler(Enough())
endpoint = resolve(sys.argv[1], "POLLER_OTLP_ENDPOINT", "grpc")
queue = SendingQueue(None, max_size=2**20, max_age=60.0)
push = MetricExporter(endpoint, described("x", "y", "z"), queue, interval=1.0)
push.meter.create_counter("things").add(7)
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, resource.RLIM_INFINITY))
threading.stack_size(2**30)
assert refused.wait(60)
print("refused", flush=True)
sys.stdin.read()
"""


def test_a_thread_that_cannot_be_started_does_not_stop_the_export() -> None:
    with Receiver() as receiver:
        program = subprocess.Popen(
            [sys.executable, "-c", NO_THREAD, receiver.grpc_endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "refused\n"
            assert eventually(lambda: bool(receiver.points("things")))
        finally:
            program.kill()
            program.communicate()


def test_http_without_its_package_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # With None, Python's import system reports the module as missing.
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ConfigError, match=re.escape(install("http"))):
        build_sender(resolve("http://127.0.0.1:4318", "POLLER_OTLP_ENDPOINT"), 1.0)


def test_a_ca_bundle_for_requests_does_not_replace_the_collector_s_authority(
    open_push: Open, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.stranger))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.ca))
    with Receiver(tls=certificates.tls) as receiver:
        push = open_push(endpoint_of(receiver, "http/protobuf"))
        gauge(push, "users_total", Observation(7))
        assert push.shutdown(60)


def test_a_compression_that_does_not_exist_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_.*zip"):
        build_sender(resolve("http://127.0.0.1:4317", "POLLER_OTLP_ENDPOINT"), 1.0)


_PROVIDERS = {
    "grpc": """
from grpc import ssl_channel_credentials
def give():
    with open(os.environ["CA"], "rb") as file:
        return ssl_channel_credentials(file.read())
""",
    "http/protobuf": """
from requests import Session
def give():
    session = Session()
    session.verify = os.environ["CA"]
    return session
""",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_credential_provider_is_used_as_opentelemetry_specifies(
    open_push: Open,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    protocol: str,
) -> None:
    """The provider is an installed package that returns channel credentials or a session."""
    module = f"provider_of_{protocol[:4]}"
    (tmp_path / f"{module}.py").write_text(f"import os{_PROVIDERS[protocol]}")
    (tmp_path / f"{module}-1.dist-info").mkdir()
    (tmp_path / f"{module}-1.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n"
    )
    (tmp_path / f"{module}-1.dist-info" / "entry_points.txt").write_text(
        f"[opentelemetry_otlp_credential_provider]\n{module} = {module}:give\nwrong = builtins:dict\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CA", str(certificates.ca))
    where = f"OTEL_PYTHON_EXPORTER_OTLP_{protocol[:4].upper()}_CREDENTIAL_PROVIDER"
    monkeypatch.setenv(where, module)
    with Receiver(tls=certificates.tls) as receiver:
        endpoint = endpoint_of(receiver, protocol)
        push = open_push(endpoint)
        gauge(push, "users_total", Observation(7))
        assert push.shutdown(60)
    for name, message in (("none", "'none' is not installed"), ("wrong", "it gives a dict, not a ")):
        monkeypatch.setenv(where, name)
        with pytest.raises(ConfigError, match=f"{where}: {message}"):
            build_sender(endpoint, 1.0)


def test_the_standard_variables_choose_temporality_and_histograms(
    receiver: Receiver, open_push: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta")
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"
    )
    push = open_push(endpoint_of(receiver, "grpc"))
    push.meter.create_counter("counted").add(1)
    push.meter.create_histogram("measured").record(1)
    assert push.flush(60)
    kinds = {point.metric: (point.kind, point.temporality) for point in receiver.points()}
    assert kinds == {"counted": ("sum", "delta"), "measured": ("exponential_histogram", "delta")}

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes")
    with pytest.raises(ConfigError, match="'sometimes' is not one of cumulative, delta, lowmemory"):
        open_push(endpoint_of(receiver, "grpc"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_connection_cut_while_idle_is_not_logged(
    receiver: Receiver, open_push: Open, log: Log, protocol: str
) -> None:
    """A load balancer does that between two exports."""
    push = open_push(endpoint_of(receiver, protocol))
    gauge(push, "users_total", Observation(3))
    for _ in range(3):
        assert push.flush(60)
        receiver.stop()
        receiver.start()
    assert push.flush(60)
    assert log.records == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_outage_is_a_single_warning_and_its_end_a_single_line(
    receiver: Receiver, open_push: Open, log: Log, protocol: str
) -> None:
    push = open_push(endpoint_of(receiver, protocol))
    gauge(push, "users_total", Observation(3))
    receiver.stop()
    assert not push.flush(0.2)
    assert not push.flush(0.2)
    wait_until(lambda: log.records)
    assert push.last_export_ok is False
    (warning,) = log.records
    assert warning.levelno == logging.WARNING
    reason = (
        "ConnectionError: Connection refused" if protocol == "http/protobuf" else ".*Connection refused.*"
    )
    assert re.fullmatch(f"export failed: {reason}", warning.getMessage())
    assert vars(warning)["hint"].startswith("start the collector, or correct host and port")

    receiver.start()
    assert push.flush(60)
    _, record = log.records
    assert record.levelno == logging.INFO
    assert re.fullmatch(r"export recovered after \d+s; delivered since then: 3 requests", record.getMessage())
    assert vars(record)["failures"] >= 1
    assert [point.value for point in receiver.points()] == [3, 3, 3]


@pytest.mark.slow
def test_http_sent_to_a_grpc_port_is_reported_as_such(receiver: Receiver, open_push: Open, log: Log) -> None:
    url = f"http://127.0.0.1:{receiver.grpc_port}"
    push = open_push(resolve(url, "POLLER_OTLP_ENDPOINT", "http/protobuf"))
    gauge(push, "users_total", Observation(3))
    assert not push.flush(10)
    (warning,) = log.records
    assert warning.getMessage() == "export failed: ConnectionError: the port speaks gRPC, not HTTP/1.1"
    assert "POLLER_OTLP_PROTOCOL=grpc" in vars(warning)["hint"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refused_flush_returns_false_and_logs_the_reason(
    receiver: Receiver, open_push: Open, log: Log, protocol: str
) -> None:
    receiver.answer = INVALID
    push = open_push(endpoint_of(receiver, protocol))
    gauge(push, "users_total", Observation(3))
    assert push.flush(60) is False
    assert receiver.points() == []
    assert ("INVALID_ARGUMENT" if protocol == "grpc" else "400") in log.records[0].getMessage()


def test_a_second_outage_has_its_own_reason(receiver: Receiver, open_push: Open, log: Log) -> None:
    push = open_push(endpoint_of(receiver, "grpc"))
    gauge(push, "users_total", Observation(3))
    for _ in range(2):
        receiver.answer = INVALID
        assert not push.flush(60)
        receiver.answer = ACCEPT
        assert push.flush(60)
    warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all("INVALID_ARGUMENT" in warning for warning in warnings)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flush_retries_a_busy_collector(receiver: Receiver, open_push: Open, protocol: str) -> None:
    receiver.answer = throttle(1)
    push = open_push(endpoint_of(receiver, protocol), timeout=20.0)
    gauge(push, "users_total", Observation(3))
    done: list[bool] = []
    worker = threading.Thread(target=lambda: done.append(push.flush(20)))
    worker.start()
    wait_until(receiver.attempts)
    receiver.answer = ACCEPT
    worker.join(60)
    assert done == [True]
    assert [point.value for point in receiver.points()] == [3]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flush_ends_in_time_while_the_collector_hangs(
    receiver: Receiver, open_push: Open, protocol: str
) -> None:
    receiver.answer = HANG
    push = open_push(endpoint_of(receiver, protocol), timeout=60.0)
    gauge(push, "users_total", Observation(3))
    assert push.flush(0.5) is False
    receiver.answer = INVALID


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shutdown_ends_while_the_collector_hangs(
    receiver: Receiver, open_push: Open, log: Log, protocol: str
) -> None:
    receiver.answer = HANG
    push = open_push(endpoint_of(receiver, protocol), interval=0.05, timeout=600.0)
    gauge(push, "users_total", Observation(3))
    wait_until(receiver.attempts)
    assert push.shutdown(0.5) is False  # the timeout of the request exceeds that of the test
    (message,) = [record.getMessage() for record in log.records]
    assert re.fullmatch(r"\d+ requests? not delivered and lost; POLLER_STATE_DIR is not set", message)
    receiver.stop()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shutdown_exports_the_last_values(receiver: Receiver, open_push: Open, protocol: str) -> None:
    push = open_push(endpoint_of(receiver, protocol), interval=3600.0)
    observations = gauge(push, "users_total", Observation(1))
    assert push.flush(60)
    observations[:] = [Observation(2)]
    assert push.shutdown(60) is True
    assert [point.value for point in receiver.points()] == [1, 2]
    assert push.shutdown(60) is True  # it has no effect
    assert len(receiver.requests()) == 2


def test_values_are_exported_at_every_interval_and_on_request(receiver: Receiver, open_push: Open) -> None:
    push = open_push(endpoint_of(receiver, "grpc"), interval=0.05)
    gauge(push, "users_total", Observation(1))
    receiver.wait_for(lambda points: len(points) >= 3)
    push.shutdown(60)
    receiver.clear()

    slow = open_push(endpoint_of(receiver, "grpc"), interval=3600.0)
    gauge(slow, "users_total", Observation(2))
    slow.soon()
    assert receiver.wait_for(lambda points: [point.value for point in points]) == [2]


def test_a_callback_that_raises_stops_neither_the_export_nor_the_other_gauges(
    receiver: Receiver, open_push: Open
) -> None:
    push = open_push(endpoint_of(receiver, "grpc"), interval=0.05)

    def broken(_: CallbackOptions) -> list[Observation]:
        raise RuntimeError("broken on purpose")

    push.meter.create_observable_gauge("broken", [broken])
    gauge(push, "users_total", Observation(1))
    receiver.wait_for(lambda points: len(points) >= 3)
    assert {point.metric for point in receiver.points()} == {"users_total"}


def test_an_absent_observation_makes_the_series_absent(receiver: Receiver, open_push: Open) -> None:
    push = open_push(endpoint_of(receiver, "grpc"))
    observations = gauge(push, "users_total", Observation(1, {"kind": "a"}), Observation(2, {"kind": "b"}))
    assert push.flush(60)
    del observations[0]
    assert push.flush(60)
    last: list[Point] = receiver.requests()[-1].points()
    assert [(point.value, point.attributes) for point in last] == [(2, {"kind": "b"})]


def test_no_series_is_ever_folded_into_an_overflow_point(receiver: Receiver, open_push: Open) -> None:
    """The SDK counts all attribute sets of an instrument, and from 2000 on sums up the others as overflow."""
    push = open_push(endpoint_of(receiver, "grpc"))
    observations = gauge(push, "users_total")
    for cycle in range(3):
        observations[:] = [Observation(number, {"user": f"{cycle}-{number}"}) for number in range(1000)]
        assert push.flush(60)
    last = receiver.requests()[-1].points()
    assert {point.attributes["user"] for point in last} == {f"2-{number}" for number in range(1000)}
    assert "otel.metric.overflow" not in {name for point in last for name in point.attributes}


def test_a_histogram_keeps_the_boundaries_it_asks_for(receiver: Receiver, open_push: Open) -> None:
    push = open_push(endpoint_of(receiver, "grpc"))
    push.meter.create_histogram(
        "poller.poll.duration", explicit_bucket_boundaries_advisory=[0.5, 5.0]
    ).record(1)
    assert push.flush(60)
    value = receiver.points()[0].value
    assert isinstance(value, Distribution)
    assert value.bounds == (0.5, 5.0)
    assert value.buckets == (0, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_large_export_is_split_into_requests_of_an_accepted_size(
    receiver: Receiver, open_push: Open, protocol: str
) -> None:
    push = open_push(endpoint_of(receiver, protocol), timeout=30.0)
    gauge(push, "users_total", *(Observation(n, {"user": f"{n:01000}"}) for n in range(5_000)))
    assert push.flush(60)
    sizes = [received.request.ByteSize() for received in receiver.requests()]
    assert len(sizes) == math.ceil(sum(sizes) / otlp_request.MAX_SIZE) > 1
    assert max(sizes) < 1.01 * otlp_request.MAX_SIZE
    assert {point.value for point in receiver.points()} == set(range(5_000))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_failure_writes_a_secret_to_the_log(
    receiver: Receiver,
    open_push: Open,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sesame")
    receiver.answer = CannedAnswer("UNAUTHENTICATED", 401, "Bearer sesame is not known here")
    address = f"{'' if protocol == 'grpc' else 'user:hunter22@'}127.0.0.1"
    port = receiver.grpc_port if protocol == "grpc" else receiver.http_port
    endpoint = resolve(
        f"http://{address}:{port}", "POLLER_OTLP_ENDPOINT", "grpc" if protocol == "grpc" else "http/protobuf"
    )
    push = open_push(endpoint)
    gauge(push, "users_total", Observation(1))
    assert push.flush(60) is False
    receiver.stop()
    assert push.flush(1) is False  # it is retried until then
    messages = log.text
    assert "export failed" in messages
    for secret in ("sesame", "hunter22"):
        assert secret not in messages
        assert secret not in repr(endpoint)


def test_a_redirect_is_a_failure_because_none_is_followed(open_push: Open, log: Log) -> None:
    import http.server

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write no access log."""

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        push = open_push(resolve(url, "POLLER_OTLP_ENDPOINT", "http/protobuf"))
        gauge(push, "users_total", Observation(1))
        assert push.flush(60) is False
        push.shutdown(0.1)
        server.shutdown()
        thread.join()
    assert "HTTP 307: the collector is elsewhere" in log.text

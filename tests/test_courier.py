"""Spans and log records are sent again while that may help, and what is lost is said once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from poller import otlp
from poller.commands.telemetry import Telemetry
from poller.courier import Courier
from poller.endpoint import Endpoint
from poller.errors import ConfigError
from poller.loading import load
from poller.receiver.answers import Answer
from poller.receiver.receiver import ACCEPT, HANG, INVALID, UNAVAILABLE, Receiver, partial
from poller.spanexport import Spans
from tests.bed.otlp import Certificates
from tests.bed.process import eventually

PROTOCOLS = ["grpc", "http"]
Make = Callable[..., Courier]


def endpoint_of(receiver: Receiver, protocol: str) -> Endpoint:
    if protocol == "grpc":
        return Endpoint(receiver.grpc_endpoint, "grpc")
    return Endpoint(f"{receiver.http_endpoint}/v1/traces", "http/protobuf")


def request() -> bytes:
    return ExportTraceServiceRequest().SerializeToString()


@pytest.fixture
def make() -> Iterator[Make]:
    """Make couriers for a receiver; ended with the test."""
    made: list[Courier] = []

    def make(receiver: Receiver, protocol: str, patience: float = 60.0) -> Courier:
        endpoint = endpoint_of(receiver, protocol)
        sender = otlp.build(endpoint, 60.0, {}, "traces")
        made.append(Courier(sender, str(endpoint), "spans", "POLLER_TRACES=false", patience))
        return made[-1]

    yield make
    for courier in made:
        courier.end(lambda: None, 1.0)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level("INFO", logger="poller.courier")

    def told() -> list[str]:
        lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
        caplog.clear()
        return lines

    return told


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_may_be_taken_later_is_sent_again(
    receiver: Receiver, make: Make, told: Callable[[], list[str]], protocol: str
) -> None:
    receiver.answer = UNAVAILABLE
    taken: list[bool] = []
    courier = make(receiver, protocol)
    carrying = threading.Thread(target=lambda: taken.append(courier.carry(request, 3)))
    carrying.start()
    receiver.wait_for_attempts(1, 60, signal="traces")
    receiver.answer = ACCEPT
    carrying.join(60)

    assert taken == [True]
    assert len(receiver.requests("traces")) == 1
    assert told() == [], "nothing was lost"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_lost_is_said_once_and_its_end_with_the_count(
    receiver: Receiver, make: Make, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    caplog.set_level("INFO", logger="poller.courier")
    courier = make(receiver, protocol)
    receiver.answer = INVALID
    assert not courier.carry(request, 3)
    assert not courier.carry(request, 2)
    receiver.answer = ACCEPT
    assert courier.carry(request, 1)
    assert courier.carry(request, 1)

    lost, again = caplog.records
    assert lost.levelname == "WARNING"
    assert lost.getMessage().startswith("3 of 3 spans are lost: ")
    assert "the receiver was told to find this invalid" in lost.getMessage()
    assert again.levelname == "INFO"
    assert again.getMessage().startswith("spans are exported again after ")
    assert vars(again)["lost"] == 5
    assert len(receiver.attempts("traces")) == 4, "what is refused is not sent again"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_partial_success_loses_a_part(
    receiver: Receiver, make: Make, told: Callable[[], list[str]], protocol: str
) -> None:
    receiver.answer = partial(2, "two too many")
    assert not make(receiver, protocol).carry(request, 3)
    assert told() == ["WARNING 2 of 3 spans are lost: two too many"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_without_a_place_for_them_is_told_apart(
    receiver: Receiver, make: Make, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    receiver.answer = Answer("UNIMPLEMENTED", 404, "unknown service")
    assert not make(receiver, protocol).carry(request, 1)
    (record,) = caplog.records
    assert vars(record)["hint"] == "the collector takes no spans; POLLER_TRACES=false sends none"


@pytest.mark.parametrize(
    ("environ", "level"), [({}, "INFO"), ({"POLLER_TRACES": "true"}, "WARNING")], ids=["default", "asked for"]
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_of_metrics_only_draws_no_warning_about_spans_that_nobody_asked_for(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, protocol: str, environ: dict[str, str], level: str
) -> None:
    caplog.set_level("INFO", logger="poller.courier")
    receiver.answers = {"traces": Answer("UNIMPLEMENTED", 404, "unknown service")}
    url = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    telemetry = Telemetry(load({"POLLER_OTLP_ENDPOINT": url, **_protocol(protocol), **environ}))
    with telemetry.tracing.tick([]):
        pass
    telemetry.shutdown(60.0)
    assert [record.levelname for record in caplog.records] == [level]


def _protocol(protocol: str) -> dict[str, str]:
    return {"POLLER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_more_is_rejected_than_was_sent(
    receiver: Receiver, make: Make, told: Callable[[], list[str]], protocol: str
) -> None:
    receiver.answer = partial(2**63 - 1, "all of it")
    assert not make(receiver, protocol).carry(request, 3)
    assert told() == ["WARNING 3 of 3 spans are lost: all of it"]


def test_what_cannot_be_encoded_is_lost_with_its_reason(
    receiver: Receiver, make: Make, told: Callable[[], list[str]]
) -> None:
    def encode() -> bytes:
        raise ValueError("no such bytes")

    courier = make(receiver, "grpc")
    assert not courier.carry(encode, 2)
    assert told() == ["WARNING 2 of 2 spans are lost: ValueError: no such bytes"]
    assert receiver.attempts("traces") == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_end_cuts_what_is_under_way_and_calls_it_no_loss_of_the_collector_s(
    receiver: Receiver, make: Make, told: Callable[[], list[str]], protocol: str
) -> None:
    receiver.answer = UNAVAILABLE
    courier = make(receiver, protocol, patience=3600.0)
    carrying = threading.Thread(target=courier.carry, args=[request, 1])
    carrying.start()
    receiver.wait_for_attempts(1, 60, signal="traces")
    courier.end(lambda: None, 0.0)
    carrying.join(60)

    assert not carrying.is_alive()
    assert told() == []


# --- the batch behind it


@pytest.mark.parametrize("away", ["hanging", "gone"])
def test_spans_leave_no_thread_behind_and_their_end_waits_for_nobody(receiver: Receiver, away: str) -> None:
    """Whatever the collector does; the gauges' history is not at stake."""
    before = set(threading.enumerate())
    if away == "gone":
        receiver.stop()
    else:
        receiver.answer = HANG
    spans = Spans(endpoint_of(receiver, "grpc"), _resource(), 3600.0)
    for _ in range(3000):
        spans.tracer.start_span("one").end()
    if away == "hanging":
        receiver.wait_for_attempts(1, 60, signal="traces")
    spans.shutdown(0.2)

    assert eventually(lambda: not [one for one in _ours() if one not in before])


def test_more_spans_than_fit_push_out_the_oldest(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    receiver.answer = HANG
    spans = Spans(endpoint_of(receiver, "grpc"), _resource(), 60.0)
    for number in range(10):
        spans.tracer.start_span(f"early {number}").end()
    receiver.wait_for_attempts(1, 60, signal="traces")  # it is stuck with the first ten
    for number in range(1000):
        spans.tracer.start_span(f"late {number}").end()
    receiver.answer = ACCEPT
    receiver.stop()
    receiver.start()
    spans.shutdown(60.0)

    names = {span.name for span in receiver.spans()}
    assert {name for name in names if name.startswith("late")} == {f"late {n}" for n in range(990, 1000)}


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "OTEL_BSP_.*: max_queue_size must be a positive integer"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/no/such.pem", "TRACES_CERTIFICATE: .* cannot be read"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "OTEL_EXPORTER_OTLP_COMPRESSION: 'zip' is not known"),
    ],
)
def test_a_standard_variable_that_cannot_be_used_is_named(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=complaint):
        Spans(endpoint_of(receiver, "grpc"), _resource(), 1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_headers_and_compression_are_those_of_the_signal(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The signal's own variables go before those of all; those of metrics mean nothing here."""
    given = {
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "x-for=metrics",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-for=all",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-for=traces",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.ca),
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": str(certificates.client),
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": str(certificates.client_key),
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with Receiver(tls=certificates.mtls) as receiver:
        spans = Spans(endpoint_of(receiver, protocol), _resource(), 60.0)
        spans.tracer.start_span("one").end()
        spans.shutdown(60.0)
        (received,) = receiver.requests("traces")

    assert [span.name for span in received.spans()] == ["one"]
    assert received.headers["x-for"] == "traces"
    if protocol == "http":
        assert received.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_secret_of_the_signal_s_headers_reaches_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20hunter2secret")
    with Receiver() as receiver:
        receiver.answer = Answer("UNAUTHENTICATED", 401, "Bearer hunter2secret is not known here")
        spans = Spans(endpoint_of(receiver, protocol), _resource(), 60.0)
        spans.tracer.start_span("one").end()
        spans.shutdown(60.0)
    assert "1 of 1 span is lost" in caplog.text
    assert "hunter2secret" not in caplog.text
    assert "***" in caplog.text


def test_nobody_listening_is_a_loss_with_its_reason(
    make: Make, receiver: Receiver, told: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.stop()
    assert not make(receiver, "grpc", patience=0.0).carry(request, 1)
    (record,) = caplog.records
    (line,) = told()
    assert line.startswith("WARNING 1 of 1 span is lost: UNAVAILABLE: ")
    assert vars(record)["hint"].startswith("start the collector, or correct host and port")


def _resource() -> Any:
    from poller.export import resource

    return resource("tested", "test", "1")


def _ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(("OtelBatch", "last "))]

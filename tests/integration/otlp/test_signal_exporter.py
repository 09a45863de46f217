"""Spans and log records are delivered from memory like metrics, and each loss is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider

from poller.config.load_settings import load
from poller.daemon.build import open_telemetry
from poller.model.errors import ConfigError
from poller.model.otlp_endpoint import Protocol, Signal
from poller.model.retry import RetryConfig
from poller.otlp.exporter import resource
from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.queue_folder import Reason
from poller.otlp.signal_exporter import QueueLimits, SignalExport
from poller.receiver.answers import CannedAnswer
from poller.receiver.receiver import ACCEPT, CUT, HANG, INVALID, UNAVAILABLE, Receiver, partial
from poller.telemetry.export_metrics import register_exports
from poller.telemetry.span_exporter import Spans
from tests.bed.cleanup import closing_all
from tests.bed.otlp import Certificates, endpoint_of
from tests.bed.process import eventually

PROTOCOLS: list[Protocol] = ["grpc", "http/protobuf"]
SIGNALS: list[Signal] = ["traces", "logs"]
ITEMS = {"traces": "spans", "logs": "log records"}
NO_PLACE = CannedAnswer("UNIMPLEMENTED", 404, "unknown service")
SICK = CannedAnswer("INTERNAL", 500, "the receiver is configured to fail")
TOO_LARGE = CannedAnswer("RESOURCE_EXHAUSTED", 413, "Received message larger than max (5 vs. 4)")
PATIENCE = 60.0

Make = Callable[..., SignalExport]
pytestmark = pytest.mark.usefixtures("_no_sdk_delay")


@pytest.fixture
def _no_sdk_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


def spans(names: Sequence[str]) -> ExportTraceServiceRequest:
    """Return spans of these names; every second span has another scope."""
    request = ExportTraceServiceRequest()
    scopes = request.resource_spans.add().scope_spans
    for number, name in enumerate(names):
        scope = scopes.add() if number % 2 == 0 else scopes[-1]
        scope.scope.name = f"scope of {name}"
        scope.spans.add(name=name)
    return request


def records(bodies: Sequence[str]) -> ExportLogsServiceRequest:
    """Return log records with these bodies, each in its own scope."""
    request = ExportLogsServiceRequest()
    scopes = request.resource_logs.add().scope_logs
    for body in bodies:
        scopes.add().log_records.add().body.string_value = body
    return request


def settle(exporter: SignalExport) -> None:
    """Wait until the queue is empty."""
    exporter.delivery.drain(PATIENCE)
    assert exporter.delivery.queue.empty


ENCODE: dict[Signal, Callable[[Sequence[str]], Any]] = {"traces": spans, "logs": records}


def names(receiver: Receiver, signal: Signal) -> list[str]:
    """Return the names of the accepted items, in the order of their arrival."""
    if signal == "traces":
        return [span.name for span in receiver.spans()]
    return [str(record.body) for record in receiver.records()]


def sizes(receiver: Receiver, signal: Signal) -> list[int]:
    """Return the number of items of each accepted request."""
    return [len(request.spans()) + len(request.records()) for request in receiver.requests(signal)]


def answering(*answers: CannedAnswer) -> Receiver:
    """Return a receiver that gives each of these answers once, and then accepts."""
    remaining = list(answers)

    def advance(_: object) -> None:
        receiver.answer = remaining.pop(0) if remaining else ACCEPT

    receiver = Receiver(on_request=advance)
    receiver.answer = remaining.pop(0)
    return receiver


@pytest.fixture
def make() -> Iterator[Make]:
    """Create exporters to a receiver, with short pauses; shut down after the test."""

    def create(
        receiver: Receiver,
        protocol: Protocol = "grpc",
        signal: Signal = "traces",
        pause: float = 0.05,
        **limits: Any,
    ) -> SignalExport:
        endpoint = endpoint_of(receiver, protocol, signal)
        bounds = QueueLimits(retry=RetryConfig(1.0, pause), **limits)
        # On a machine that stalls no answer may be late.
        return SignalExport(signal, endpoint, PATIENCE, limits=bounds)

    with closing_all(create, lambda exporter: exporter.shutdown(lambda: None, 0.0)) as make:
        yield make


@pytest.fixture
def take_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the lines that were logged since the last call."""
    caplog.set_level("INFO", logger="poller.delivery")

    def take_lines() -> list[str]:
        lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
        caplog.clear()
        return lines

    return take_lines


both = pytest.mark.parametrize("protocol", PROTOCOLS)
each = pytest.mark.parametrize("signal", SIGNALS)


@both
@each
def test_after_an_outage_everything_arrives_once_and_in_order(
    make: Make, take_lines: Callable[[], list[str]], protocol: Protocol, signal: Signal
) -> None:
    with Receiver() as receiver:
        exporter = make(receiver, protocol, signal)
        receiver.stop()
        for number in range(4):
            assert exporter.export(ENCODE[signal], [f"{number}a", f"{number}b"])
        assert eventually(lambda: exporter.delivery.stats.requests.total() >= 3)
        receiver.start()
        settle(exporter)
        assert names(receiver, signal) == [f"{number}{letter}" for number in range(4) for letter in "ab"]

    failed, again = take_lines()
    assert failed.startswith(f"WARNING export of {ITEMS[signal]} failed")
    assert again.startswith(f"INFO export of {ITEMS[signal]} recovered after ")
    assert again.endswith("delivered since then: 4 requests")
    assert not exporter.delivery.stats.rejected
    assert not exporter.delivery.queue.dropped


@both
@pytest.mark.parametrize(
    "answer", [UNAVAILABLE, CUT, SICK, CannedAnswer("UNAUTHENTICATED", 401, "who are you")]
)
def test_errors_that_do_not_concern_the_data_lose_none(
    make: Make, protocol: Protocol, answer: CannedAnswer
) -> None:
    with answering(answer, answer) as receiver:
        exporter = make(receiver, protocol)
        exporter.export(spans, ["one"])
        assert eventually(lambda: names(receiver, "traces") == ["one"], PATIENCE)
    assert not exporter.delivery.stats.rejected


@pytest.mark.slow
@both
def test_the_collector_decides_the_time_of_the_next_attempt(make: Make, protocol: Protocol) -> None:
    with answering(CannedAnswer("RESOURCE_EXHAUSTED", 429, "not now", retry_after=1)) as receiver:
        exporter = make(receiver, protocol)
        exporter.export(spans, ["one"])
        assert eventually(lambda: names(receiver, "traces") == ["one"], PATIENCE)
        first, second = (received.at for received in receiver.attempts("traces"))
    assert second - first >= 0.9


@both
@each
def test_refused_items_are_counted_and_logged_once_and_the_next_are_sent(
    receiver: Receiver, make: Make, take_lines: Callable[[], list[str]], protocol: Protocol, signal: Signal
) -> None:
    exporter = make(receiver, protocol, signal)
    receiver.answer = INVALID
    exporter.export(ENCODE[signal], ["a", "b", "c"])
    exporter.export(ENCODE[signal], ["d", "e"])
    settle(exporter)
    receiver.answer = ACCEPT
    exporter.export(ENCODE[signal], ["f"])
    settle(exporter)

    assert names(receiver, signal) == ["f"]
    assert exporter.delivery.stats.rejected == {"invalid": 5}
    lost, again = take_lines()
    assert lost.startswith(f"WARNING export of {ITEMS[signal]} refused, its {ITEMS[signal]} are lost: ")
    assert "the receiver is configured to reject this" in lost
    assert again.startswith(f"INFO export of {ITEMS[signal]} recovered after")


@both
@each
@pytest.mark.parametrize("rejected", [2, 2**63 - 1])
def test_a_partial_success_is_counted_up_to_the_number_of_items(
    receiver: Receiver,
    make: Make,
    take_lines: Callable[[], list[str]],
    protocol: Protocol,
    signal: Signal,
    rejected: int,
) -> None:
    exporter = make(receiver, protocol, signal)
    receiver.answer = partial(rejected, "too many")
    exporter.export(ENCODE[signal], ["a", "b", "c"])
    settle(exporter)
    most = min(rejected, 3)
    assert exporter.delivery.stats.rejected == {"partial_success": most}
    assert take_lines() == [f"WARNING the collector rejects {most} of 3 {ITEMS[signal]}: too many"]


@both
@each
def test_a_request_that_is_too_large_arrives_in_halves(
    make: Make, protocol: Protocol, signal: Signal
) -> None:
    with answering(TOO_LARGE, TOO_LARGE) as receiver:  # the whole request, then its first half
        exporter = make(receiver, protocol, signal)
        exporter.export(ENCODE[signal], [f"{number}" for number in range(10)])
        settle(exporter)
        assert names(receiver, signal) == [f"{number}" for number in range(10)]
        assert sizes(receiver, signal) == [3, 2, 3, 2]
        if signal == "traces":
            scopes = {span.name: span.scope for span in receiver.spans()}
            assert (scopes["0"], scopes["9"]) == ("scope of 1", "scope of 9")
        groups = [scopes_of(received.request) for received in receiver.requests(signal)]
    assert all(groups), "no scope without items is sent"
    assert not exporter.delivery.stats.rejected


def scopes_of(request: Any) -> bool:
    """Return whether every scope of a request has items."""
    if isinstance(request, ExportTraceServiceRequest):
        return all(scope.spans for group in request.resource_spans for scope in group.scope_spans)
    return all(scope.log_records for group in request.resource_logs for scope in group.scope_logs)


@each
def test_a_batch_above_the_size_limit_is_split_before_it_is_queued(
    receiver: Receiver, make: Make, signal: Signal
) -> None:
    exporter = make(receiver, signal=signal, request_size=300)
    texts = [f"{number}".ljust(60, ".") for number in range(20)]
    exporter.export(ENCODE[signal], texts)
    settle(exporter)
    assert names(receiver, signal) == texts
    bodies = [received.request.SerializeToString() for received in receiver.requests(signal)]
    assert len(bodies) > 4
    assert all(len(body) <= 300 for body in bodies)


@each
def test_a_single_item_that_is_too_large_is_dropped_alone(make: Make, signal: Signal) -> None:
    with answering(TOO_LARGE, ACCEPT, TOO_LARGE) as receiver:
        exporter = make(receiver, signal=signal)
        exporter.export(ENCODE[signal], ["a", "b"])
        settle(exporter)
        assert names(receiver, signal) == ["a"]
    assert exporter.delivery.stats.rejected == {"too_large": 1}


def test_a_batch_that_makes_the_collector_fail_blocks_no_other(make: Make) -> None:
    with answering(ACCEPT, *[SICK] * 11, ACCEPT, SICK) as receiver:
        exporter = make(receiver, pause=0.01)
        for name in ("good", "bad", "next"):
            exporter.export(spans, [name])
        assert eventually(lambda: "next" in names(receiver, "traces"), PATIENCE)
        assert "bad" not in names(receiver, "traces")
    assert exporter.delivery.stats.rejected == {"poison": 1}


@each
@pytest.mark.parametrize(
    ("limits", "reason"), [({"size": 250}, "size"), ({"age": 0.0}, "age")], ids=["size", "age"]
)
def test_items_above_the_memory_limit_are_dropped_oldest_first_and_counted(
    receiver: Receiver,
    make: Make,
    take_lines: Callable[[], list[str]],
    signal: Signal,
    limits: dict[str, Any],
    reason: Reason,
) -> None:
    receiver.answers = {signal: UNAVAILABLE}
    exporter = make(receiver, signal=signal, **limits)
    for number in range(50):
        exporter.export(ENCODE[signal], [f"{number}".ljust(50, ".")])
    assert eventually(lambda: exporter.delivery.queue.dropped[reason] >= 45, PATIENCE)
    assert exporter.delivery.queue.size <= 250 + 100, "the current request is stored as well"
    (line,) = [line for line in take_lines() if "is dropped" in line]
    assert line.startswith(f"WARNING export of {ITEMS[signal]}: the waiting data is ")
    assert "POLLER_SPOOL" not in line, "no setting changes the limit"
    if reason == "size":
        receiver.answers = {}
        settle(exporter)
        assert names(receiver, signal)[-1].startswith("49.")


@each
def test_an_item_that_cannot_be_encoded_is_dropped_alone(
    receiver: Receiver, make: Make, take_lines: Callable[[], list[str]], signal: Signal
) -> None:
    exporter = make(receiver, signal=signal)
    assert not exporter.export(ENCODE[signal], ["a", "\ud800", "b"])
    settle(exporter)
    assert names(receiver, signal) == ["a", "b"]
    assert exporter.delivery.stats.rejected == {"unencodable": 1}
    (line,) = take_lines()
    assert line.startswith(f"WARNING 1 of 3 {ITEMS[signal]} are lost: they cannot be encoded: ")
    assert not exporter.export(ENCODE[signal], ["\ud800"]), "a batch without valid items sends no request"
    assert sizes(receiver, signal) == [2]


# --- metrics about the exports


def test_the_metrics_of_exports_distinguish_the_signals(receiver: Receiver, make: Make) -> None:
    traces, logs = make(receiver, signal="traces"), make(receiver, signal="logs")
    reader = OnDemandReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("one")
    register_exports(meter, [traces.delivery, logs.delivery])
    receiver.answers = {"traces": partial(2, "too many"), "logs": INVALID}
    traces.export(spans, ["a", "b", "c"])
    logs.export(records, ["a"])
    settle(traces)
    settle(logs)
    receiver.answers = {"traces": UNAVAILABLE}
    traces.export(spans, ["d"])
    assert eventually(lambda: traces.delivery.stats.requests.total() >= 2)

    values = {
        (metric.name, *sorted((point.attributes or {}).items())): point.value  # type: ignore[union-attr]  # no histogram
        for metric in reader.read()
        for point in metric.data.data_points
    }
    of_traces, of_logs = ("poller.signal", "traces"), ("poller.signal", "logs")
    assert values["poller.export.rejected", ("poller.reason", "partial_success"), of_traces] == 2
    assert values["poller.export.rejected", ("poller.reason", "invalid"), of_logs] == 1
    assert values["poller.export.requests", ("poller.outcome", "ok"), of_traces] == 1
    assert values["poller.export.spool.requests", of_traces] == 1
    assert values["poller.export.spool.requests", of_logs] == 0


def test_spans_dropped_by_the_sdk_are_counted_if_its_own_metrics_are_on(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's queue fills only before spans are encoded, independently of the collector."""
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    reader = OnDemandReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    exported = Spans(endpoint_of(receiver, "grpc", "traces"), _resource(), PATIENCE, meter_provider=provider)
    for _ in range(2000):
        exported.tracer.start_span("one").end()
    exported.shutdown(PATIENCE)
    counts: dict[object, float] = {
        (point.attributes or {}).get("error.type"): point.value  # type: ignore[union-attr]  # no histogram
        for metric in reader.read()
        if metric.name == "otel.sdk.processor.span.processed"
        for point in metric.data.data_points
    }
    assert counts[None] == len(receiver.spans())
    # The SDK counts a few too many while its thread empties the queue.
    assert counts["queue_full"] >= 2000 - len(receiver.spans()) > 0


# --- a collector that does not support the signal


@both
@each
def test_the_hint_about_an_unsupported_signal_names_the_setting(
    receiver: Receiver, make: Make, caplog: pytest.LogCaptureFixture, protocol: Protocol, signal: Signal
) -> None:
    receiver.answer = NO_PLACE
    exporter = make(receiver, protocol, signal)
    exporter.export(ENCODE[signal], ["a"])
    receiver.wait_for_attempts(3, PATIENCE, signal=signal)
    exporter.shutdown(lambda: None, PATIENCE)
    failed, lost = caplog.records
    setting = {"traces": "POLLER_TRACES=false", "logs": "POLLER_OTLP_LOGS=false"}[signal]
    assert vars(failed)["hint"] == f"the collector accepts no {ITEMS[signal]}; {setting} turns them off"
    assert lost.getMessage() == f"export of {ITEMS[signal]}: 1 request not delivered and lost"


@both
@pytest.mark.parametrize(
    ("environ", "level"), [({}, "INFO"), ({"POLLER_TRACES": "true"}, "WARNING")], ids=["default", "asked for"]
)
def test_a_collector_of_only_metrics_causes_no_warning_about_spans_enabled_by_default(
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    protocol: Protocol,
    environ: dict[str, str],
    level: str,
) -> None:
    caplog.set_level("INFO", logger="poller.delivery")
    receiver.answers = {"traces": NO_PLACE}
    url = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    settings = {"POLLER_OTLP_ENDPOINT": url, "POLLER_OTLP_PROTOCOL": protocol, **environ}
    telemetry = open_telemetry(load(settings))
    with telemetry.tracing_of("").tick([]):
        pass
    telemetry.shutdown(PATIENCE)
    # Only an operator can fix the reason of the refusal, so shutdown does not wait.
    assert [record.levelname for record in caplog.records] == [level, level]
    assert len(receiver.attempts("traces")) in (1, 2)


# --- shutdown


@both
@pytest.mark.parametrize("away", ["hanging", "gone", "unavailable"])
def test_shutdown_waits_for_no_collector_and_leaves_no_thread(
    receiver: Receiver, take_lines: Callable[[], list[str]], protocol: Protocol, away: str
) -> None:
    before = set(threading.enumerate())
    if away == "gone":
        receiver.stop()
    else:
        receiver.answer = HANG if away == "hanging" else UNAVAILABLE
    exported = Spans(endpoint_of(receiver, protocol, "traces"), _resource(), 3600.0)
    for _ in range(3000):
        exported.tracer.start_span("one").end()
    if away != "gone":
        receiver.wait_for_attempts(1, PATIENCE, signal="traces")
    exported.shutdown(0.2)

    assert eventually(lambda: not [thread for thread in _export_threads() if thread not in before])
    assert "requests not delivered and lost" in take_lines()[-1]


@pytest.mark.slow
def test_shutdown_sends_queued_items_even_during_a_pause(receiver: Receiver, make: Make) -> None:
    receiver.answer = UNAVAILABLE
    exporter = make(receiver, pause=3600.0)
    for name in ("a", "b"):
        exporter.export(spans, [name])
    receiver.wait_for_attempts(4, PATIENCE, signal="traces")
    receiver.answer = ACCEPT
    exporter.shutdown(lambda: exporter.export(spans, ["c"]), PATIENCE)
    assert names(receiver, "traces") == ["a", "b", "c"]


def test_without_spans_there_is_no_thread_to_send_them(receiver: Receiver, make: Make) -> None:
    before = set(threading.enumerate())
    make(receiver)
    assert set(threading.enumerate()) == before


# --- the standard variables


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "OTEL_BSP_.*: max_queue_size must be a positive integer"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/no/such.pem", "TRACES_CERTIFICATE: .* cannot be read"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "OTEL_EXPORTER_OTLP_COMPRESSION: 'zip' is not known"),
    ],
)
def test_an_invalid_standard_variable_is_named(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        Spans(endpoint_of(receiver, "grpc", "traces"), _resource(), 1.0)


@both
def test_tls_headers_and_compression_are_those_of_the_signal(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    """The signal's own variables take precedence over the general ones; those of metrics do not apply."""
    environ = {
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "x-for=metrics",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-for=all",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-for=traces",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.ca),
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": str(certificates.client),
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": str(certificates.client_key),
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with Receiver(tls=certificates.mtls) as receiver:
        exported = Spans(endpoint_of(receiver, protocol, "traces"), _resource(), PATIENCE)
        exported.tracer.start_span("one").end()
        exported.shutdown(PATIENCE)
        (received,) = receiver.requests("traces")

    assert [span.name for span in received.spans()] == ["one"]
    assert received.headers["x-for"] == "traces"
    if protocol != "grpc":
        assert received.headers["content-encoding"] == "gzip"


@both
def test_no_secret_of_the_signals_headers_reaches_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: Protocol
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20hunter2secret")
    with Receiver() as receiver:
        receiver.answer = CannedAnswer("UNAUTHENTICATED", 401, "Bearer hunter2secret is not known here")
        exported = Spans(endpoint_of(receiver, protocol, "traces"), _resource(), PATIENCE)
        exported.tracer.start_span("one").end()
        exported.shutdown(PATIENCE)
    assert "export of spans failed" in caplog.text
    assert "hunter2secret" not in caplog.text
    assert "***" in caplog.text


def _resource() -> Any:
    return resource("tested", "test", "1")


def _export_threads() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name.startswith(("OtelBatch", "delivery of"))
    ]

"""The receiver stores the exact values of OpenTelemetry's own exporters, and gives the configured answers."""

from __future__ import annotations

import gzip
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it ships stubs without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from poller.receiver.receiver import (
    ACCEPT,
    HANG,
    INVALID,
    UNAVAILABLE,
    Distribution,
    Point,
    Received,
    Receiver,
    partial,
    throttle,
)
from tests.bed.otlp import Certificates
from tests.bed.process import Process
from tests.bed.proxy import Proxy

LARGEST = 2**63 - 1
PROTOCOLS = ("grpc", "http")

Send = Callable[..., MetricExportResult]


def grpc_exporter(receiver: Receiver, **options: Any) -> GrpcExporter:
    return GrpcExporter(endpoint=receiver.grpc_endpoint, **options)


def http_exporter(receiver: Receiver, **options: Any) -> HttpExporter:
    return HttpExporter(endpoint=f"{receiver.http_endpoint}/v1/metrics", **options)


EXPORTERS: dict[str, Callable[..., MetricExporter]] = {"grpc": grpc_exporter, "http": http_exporter}


@pytest.fixture
def send() -> Iterator[Send]:
    """Export metrics once through a new exporter of a protocol; return its result."""
    exporters: list[MetricExporter] = []

    def send(receiver: Receiver, protocol: str, data: MetricsData, **options: Any) -> MetricExportResult:
        exporter = EXPORTERS[protocol](receiver, **{"timeout": 60, **options})
        exporters.append(exporter)
        return exporter.export(data)

    yield send
    for exporter in exporters:
        exporter.shutdown()


@pytest.fixture(scope="module")
def metrics() -> MetricsData:
    """Metrics of each instrument of the SDK, collected once."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({"service.name": "tested", "answer": 42}))
    meter = provider.get_meter("the scope")

    def users(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(LARGEST, {"state": "active", "ok": True, "n": 3, "share": 0.5})
        yield Observation(-1, {"state": "größer"})

    meter.create_observable_gauge("users_total", [users], "{user}", "Registered users.")
    meter.create_observable_gauge("share", [lambda _: [Observation(0.1)]])
    meter.create_counter("polls", "{poll}").add(7, {"outcome": "ok"})
    meter.create_up_down_counter("open").add(-2)
    duration = meter.create_histogram("duration", "s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
    for seconds in (0.05, 0.5, 0.75, 20.0):
        duration.record(seconds)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


def only(points: list[Point]) -> Point:
    (point,) = points
    return point


# --- what arrives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_value_arrives_as_it_was_sent(
    receiver: Receiver, metrics: MetricsData, send: Send, protocol: str
) -> None:
    assert send(receiver, protocol, metrics) is MetricExportResult.SUCCESS

    users = {point.attributes["state"]: point for point in receiver.points("users_total")}
    assert users["active"].value == LARGEST
    assert type(users["active"].value) is int
    assert users["active"].attributes == {"state": "active", "ok": True, "n": 3, "share": 0.5}
    assert users["active"].attributes["ok"] is True
    assert users["größer"].value == -1
    assert {(point.kind, point.unit, point.description) for point in users.values()} == {
        ("gauge", "{user}", "Registered users.")
    }
    assert {(point.temporality, point.monotonic) for point in users.values()} == {(None, None)}

    assert only(receiver.points("share")).value == 0.1

    polls = only(receiver.points("polls"))
    assert (polls.kind, polls.value, polls.temporality, polls.monotonic) == ("sum", 7, "cumulative", True)
    assert 0 < polls.start_time_unix_nano <= polls.time_unix_nano
    opened = only(receiver.points("open"))
    assert (opened.value, opened.monotonic) == (-2, False)

    duration = only(receiver.points("duration"))
    assert duration.kind == "histogram"
    assert duration.value == Distribution(4, 21.3, 0.05, 20.0, (0.1, 1.0), (1, 2, 1))

    assert {point.scope for point in receiver.points()} == {"the scope"}
    assert {(point.resource["service.name"], point.resource["answer"]) for point in receiver.points()} == {
        ("tested", 42)
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_is_stored_with_protocol_and_headers(
    receiver: Receiver, metrics: MetricsData, send: Send, protocol: str
) -> None:
    send(receiver, protocol, metrics, headers={"x-tenant": "blue"})
    (received,) = receiver.requests()
    assert received.protocol == protocol
    assert received.headers["x-tenant"] == "blue"
    assert received.answer is ACCEPT
    assert isinstance(received.request, ExportMetricsServiceRequest)
    assert received.points() == receiver.points()
    receiver.clear()
    assert receiver.attempts() == []


@pytest.mark.parametrize(
    ("protocol", "compression"),
    [
        ("grpc", grpc.Compression.Gzip),
        ("http", HttpCompression.Gzip),
        ("http", HttpCompression.Deflate),
    ],
)
def test_compressed_requests_are_smaller_with_the_same_contents(
    receiver: Receiver, make_proxy: Callable[[int], Proxy], protocol: str, compression: object
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    gauge = provider.get_meter("m").create_gauge("size")
    for number in range(500):
        gauge.set(number, {"tenant": f"tenant number {number}"})
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    proxy = make_proxy(receiver.grpc_port if protocol == "grpc" else receiver.http_port)
    path = "" if protocol == "grpc" else "/v1/metrics"
    sent: list[int] = []
    for options in ({}, {"compression": compression}):
        proxy.reset_counts()
        exporter: Any = GrpcExporter if protocol == "grpc" else HttpExporter
        client = exporter(endpoint=f"http://127.0.0.1:{proxy.port}{path}", **options)
        assert client.export(data) is MetricExportResult.SUCCESS
        client.shutdown()
        sent.append(proxy.bytes_up)
    assert sent[1] < sent[0] / 2
    plain, packed = receiver.requests()
    assert plain.request == packed.request
    assert [point.value for point in packed.points()] == list(range(500))


def test_data_that_the_sdk_does_not_send_arrive(receiver: Receiver) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics
    metric.add(name="exponential").exponential_histogram.data_points.add(count=3, sum=4.5, min=1.0, max=2.0)
    metric.add(name="summary").summary.data_points.add(count=2, sum=3.0)
    metric.add(name="unset").gauge.data_points.add()
    metric.add(name="whole").gauge.data_points.add(as_double=2.0)
    metric.add(name="nan").gauge.data_points.add(as_double=math.nan)
    assert post(receiver, request.SerializeToString())[0] == 200
    *points, whole, nan = receiver.points()
    assert type(whole.value) is float
    assert isinstance(nan.value, float)
    assert math.isnan(nan.value)
    assert [(point.kind, point.value) for point in points] == [
        ("exponential_histogram", Distribution(3, 4.5, 1.0, 2.0)),
        ("summary", Distribution(2, 3.0)),
        ("gauge", None),
    ]


def test_only_the_newest_requests_are_stored_with_a_limit(metrics: MetricsData, send: Send) -> None:
    with Receiver(keep=2) as receiver:
        for tenant in ("1", "2", "3"):
            send(receiver, "http", metrics, headers={"x-tenant": tenant})
        assert [received.headers["x-tenant"] for received in receiver.requests()] == ["2", "3"]


def test_requests_of_many_threads_are_all_stored(
    receiver: Receiver, metrics: MetricsData, send: Send
) -> None:
    def work(protocol: str) -> None:
        for _ in range(5):
            assert send(receiver, protocol, metrics) is MetricExportResult.SUCCESS

    threads = [threading.Thread(target=work, args=(protocol,)) for protocol in PROTOCOLS * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.requests()) == 30
    assert len(receiver.points("polls")) == 30


# --- waiting ------------------------------------------------------------------------------------------


def test_waiting_returns_the_result_of_the_predicate(
    receiver: Receiver, metrics: MetricsData, send: Send
) -> None:
    later = threading.Timer(0.2, send, (receiver, "grpc", metrics))
    later.start()
    values = receiver.wait_for(lambda points: [point.value for point in points if point.metric == "polls"])
    assert values == [7]
    later.join()


def test_a_timeout_of_waiting_lists_the_received_data(
    receiver: Receiver, metrics: MetricsData, send: Send
) -> None:
    send(receiver, "http", metrics)
    with pytest.raises(
        TimeoutError,
        match=r"^1 requests in 0\.1 s, 1 accepted, of the metrics duration, open, polls, share, users_total$",
    ):
        receiver.wait_for(lambda points: [point for point in points if point.metric == "other"], timeout=0.1)


# --- outage and answers -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stopped_receiver_refuses_and_the_same_exporter_reconnects(
    receiver: Receiver, metrics: MetricsData, protocol: str
) -> None:
    exporter = EXPORTERS[protocol](receiver, timeout=60)
    hasty = EXPORTERS[protocol](receiver, timeout=1)
    assert exporter.export(metrics) is MetricExportResult.SUCCESS
    ports = receiver.grpc_port, receiver.http_port

    receiver.stop()
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert hasty.export(metrics) is MetricExportResult.FAILURE
    hasty.shutdown()

    receiver.start()
    assert (receiver.grpc_port, receiver.http_port) == ports
    assert exporter.export(metrics) is MetricExportResult.SUCCESS
    assert len(receiver.requests()) == 2
    exporter.shutdown()


def test_processes_with_different_shares_choose_different_ports() -> None:
    def chosen(number: int) -> list[int]:
        code = f"from poller.receiver.ports import *; take_share({number}, 2); print(*free_ports(50))"
        output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
        return [int(port) for port in output.split()]

    assert max(chosen(0)) < min(chosen(1))


def test_a_port_in_use_is_an_error(receiver: Receiver) -> None:
    with pytest.raises(OSError, match=str(receiver.grpc_port)):
        Receiver(grpc_port=receiver.grpc_port)
    with pytest.raises(OSError, match="in use"):
        Receiver(http_port=receiver.http_port)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_invalid_request_is_not_sent_again(
    receiver: Receiver, metrics: MetricsData, send: Send, protocol: str
) -> None:
    receiver.answer = INVALID
    assert send(receiver, protocol, metrics) is MetricExportResult.FAILURE
    assert len(receiver.attempts()) == 1
    assert receiver.points() == []


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_exporter_retries_a_receiver_that_was_unavailable(
    receiver: Receiver, metrics: MetricsData, send: Send, protocol: str
) -> None:
    receiver.answer = UNAVAILABLE

    def recover() -> None:
        receiver.wait_for_attempts(1)
        receiver.answer = ACCEPT

    thread = threading.Thread(target=recover)
    thread.start()
    assert send(receiver, protocol, metrics) is MetricExportResult.SUCCESS
    thread.join()
    answers = [received.answer for received in receiver.attempts()]
    assert answers[0] == UNAVAILABLE
    assert answers[-1] == ACCEPT
    assert len(receiver.requests()) == 1


def test_throttling_by_grpc_carries_retry_info_in_both_ways(receiver: Receiver) -> None:
    receiver.answer = throttle(1.5)
    address = f"127.0.0.1:{receiver.grpc_port}"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
        export(channel)(ExportMetricsServiceRequest(), timeout=60)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(raised.value.trailing_metadata())
    status = Status.FromString(trailing["grpc-status-details-bin"])
    info = RetryInfo()
    assert status.code == 8
    assert status.details[0].Unpack(info)
    assert info == RetryInfo.FromString(trailing["google.rpc.retryinfo-bin"])
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (1, 500_000_000)


def test_throttling_by_http_carries_retry_after_in_whole_seconds(receiver: Receiver) -> None:
    receiver.answer = throttle(1.5)
    code, headers, body = post(receiver, b"")
    assert (code, headers["Retry-After"]) == (429, "2")
    assert Status.FromString(body).code == 8


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_partial_success_reports_the_number_of_rejected_points(receiver: Receiver, protocol: str) -> None:
    receiver.answer = partial(3, "too old")
    if protocol == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
            response = export(channel)(ExportMetricsServiceRequest(), timeout=60)
    else:
        code, _, body = post(receiver, b"")
        assert code == 200
        response = ExportMetricsServiceResponse.FromString(body)
    assert response.partial_success.rejected_data_points == 3
    assert response.partial_success.error_message == "too old"
    assert len(receiver.requests()) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_exporter_times_out_on_a_hanging_receiver_which_then_serves_again(
    receiver: Receiver, metrics: MetricsData, send: Send, protocol: str
) -> None:
    receiver.answer = HANG
    while not receiver.attempts():  # a machine that stalls may not even begin to send in this time
        assert send(receiver, protocol, metrics, timeout=0.5) is MetricExportResult.FAILURE
    assert receiver.points() == []
    receiver.answer = ACCEPT
    assert send(receiver, protocol, metrics) is MetricExportResult.SUCCESS
    assert len(receiver.requests()) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_stopping_ends_a_hanging_request(
    receiver: Receiver, metrics: MetricsData, send: Send, protocol: str
) -> None:
    receiver.answer = HANG
    thread = threading.Thread(target=send, args=(receiver, protocol, metrics), kwargs={"timeout": 1})
    thread.start()
    receiver.wait_for_attempts(1)
    receiver.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert receiver.requests() == []


def export(channel: Any) -> Any:
    return channel.unary_unary(
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        request_serializer=ExportMetricsServiceRequest.SerializeToString,
        response_deserializer=ExportMetricsServiceResponse.FromString,
    )


def post(
    receiver: Receiver,
    body: bytes,
    path: str = "/v1/metrics",
    headers: Mapping[str, str] = {"Content-Type": "application/x-protobuf"},
) -> tuple[int, Mapping[str, str], bytes]:
    request = urllib.request.Request(receiver.http_endpoint + path, body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.mark.parametrize(
    ("path", "headers", "body", "code"),
    [
        pytest.param("/v1/profiles", {"Content-Type": "application/x-protobuf"}, b"", 404, id="unknown path"),
        pytest.param("/v1/metrics", {"Content-Type": "text/plain"}, b"{}", 415, id="text"),
        pytest.param(
            "/v1/metrics",
            {"Content-Type": "application/x-protobuf", "Content-Encoding": "br"},
            b"",
            415,
            id="an unknown encoding",
        ),
        pytest.param(
            "/v1/metrics", {"Content-Type": "application/x-protobuf"}, b"\xff\xff", 400, id="not protobuf"
        ),
        pytest.param(
            "/v1/metrics",
            {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"},
            b"not gzip",
            400,
            id="not gzip",
        ),
    ],
)
def test_an_invalid_request_is_refused_and_not_stored(
    receiver: Receiver, path: str, headers: Mapping[str, str], body: bytes, code: int
) -> None:
    answered, _, reply = post(receiver, body, path, headers)
    assert answered == code
    assert Status.FromString(reply).message
    assert receiver.attempts() == []


# --- the other signals, and JSON ----------------------------------------------------------------------

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
TRACES_AS_JSON = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "tested"}}]},
            "scopeSpans": [
                {
                    "scope": {"name": "the scope"},
                    "spans": [
                        {
                            "name": "GET /users",
                            "kind": 2,
                            "traceId": TRACE,
                            "spanId": SPAN,
                            "parentSpanId": PARENT,
                            "startTimeUnixNano": "1",
                            "endTimeUnixNano": "3",
                            "attributes": [{"key": "n", "value": {"intValue": "7"}}],
                            "events": [
                                {"name": "seen", "attributes": [{"key": "ok", "value": {"boolValue": True}}]}
                            ],
                            "links": [{"attributes": [{"key": "why", "value": {"stringValue": "so"}}]}],
                            "status": {"code": 2, "message": "bad"},
                            "unknownToUs": 1,
                        }
                    ],
                }
            ],
        }
    ]
}
LOGS_AS_JSON = {
    "resourceLogs": [
        {
            "scopeLogs": [
                {
                    "scope": {"name": "a.logger"},
                    "logRecords": [
                        {
                            "severityNumber": 9,
                            "severityText": "INFO",
                            "body": {"stringValue": "hello"},
                            "traceId": TRACE,
                            "spanId": SPAN,
                        },
                        {"body": {"kvlistValue": {"values": [{"key": "a", "value": {"doubleValue": 0.5}}]}}},
                    ],
                }
            ]
        }
    ]
}


def send_json(receiver: Receiver, path: str, document: object) -> tuple[int, Mapping[str, str], bytes]:
    return post(receiver, json.dumps(document).encode(), path, {"Content-Type": "application/json"})


def test_spans_as_json_arrive_with_their_hexadecimal_ids(receiver: Receiver) -> None:
    code, headers, body = send_json(receiver, "/v1/traces", TRACES_AS_JSON)
    assert (code, headers["Content-Type"], json.loads(body)) == (200, "application/json", {})
    (span,) = receiver.spans("GET /users")
    assert (span.kind, span.status, span.status_message) == ("server", "error", "bad")
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, SPAN, PARENT)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1, 3)
    assert span.attributes == {"n": 7}
    assert [(event.name, event.attributes) for event in span.events] == [("seen", {"ok": True})]
    assert [link.attributes for link in span.links] == [{"why": "so"}]
    assert (span.resource, span.scope) == ({"service.name": "tested"}, "the scope")
    (received,) = receiver.requests("traces")
    assert received.signal == "traces"
    assert (received.points(), received.records()) == ([], [])


def test_log_records_as_json_arrive(receiver: Receiver) -> None:
    assert send_json(receiver, "/v1/logs", LOGS_AS_JSON)[0] == 200
    first, second = receiver.records()
    assert (first.body, first.severity, first.severity_text, first.scope) == ("hello", 9, "INFO", "a.logger")
    assert (first.trace_id, first.span_id) == (TRACE, SPAN)
    assert (second.body, second.trace_id, second.span_id) == ({"a": 0.5}, "", "")


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"resourceSpans": 7}', b'{"x": {"traceId": "0a7"}}'])
def test_an_invalid_json_request_is_refused_in_json(receiver: Receiver, body: bytes) -> None:
    code, headers, reply = post(receiver, body, "/v1/traces", {"Content-Type": "application/json"})
    assert (code, headers["Content-Type"]) == (400, "application/json")
    assert json.loads(reply)["message"]
    assert receiver.attempts() == []


def by_hand(receiver: Receiver, head: str, body: bytes) -> bytes:
    """Return the answer to a request that is written byte by byte."""
    with socket.create_connection(("127.0.0.1", receiver.http_port), 30) as connection:
        lines = ["POST /v1/traces HTTP/1.1", "Host: x", "Content-Type: application/json", "Connection: close"]
        connection.sendall("\r\n".join([*lines, head, "", ""]).encode() + body)
        return b"".join(iter(lambda: connection.recv(10_000), b""))


def test_a_chunked_body_arrives_completely(receiver: Receiver) -> None:
    body = json.dumps(TRACES_AS_JSON).encode()
    chunks = b"".join(
        b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:500], body[500:]) if part
    )
    reply = by_hand(receiver, "Transfer-Encoding: chunked", chunks + b"0\r\nTrailer: x\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200")
    assert [span.name for span in receiver.spans()] == ["GET /users"]


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        ("Transfer-Encoding: chunked", b"what\r\n", 400),
        ("Transfer-Encoding: chunked", b"-1\r\n", 400),
        ("Content-Length: many", b"", 400),
        ("Content-Length: -1", b"", 400),
        ("Transfer-Encoding: chunked", b"ffffffff\r\n", 413),
        ("Content-Length: 4294967295", b"", 413),
    ],
)
def test_a_body_with_an_invalid_or_excessive_length_is_refused(
    receiver: Receiver, head: str, body: bytes, code: int
) -> None:
    assert by_hand(receiver, head, body).startswith(b"HTTP/1.1 %d" % code)
    assert receiver.attempts() == []


BOMB = bytes(200 * 2**20)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_decompression_bomb_is_refused_before_it_is_decompressed(receiver: Receiver, encoding: str) -> None:
    body = zlib.compress(BOMB, 1) if encoding == "deflate" else gzip.compress(BOMB, 1)
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": encoding}
    tracemalloc.start()
    try:
        code, _, reply = post(receiver, body, headers=headers)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (code, "too large" in Status.FromString(reply).message) == (413, True)
    assert most < len(BOMB) / 4
    assert receiver.attempts() == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_truncated_compressed_body_is_refused_and_a_complete_body_accepted(
    receiver: Receiver, encoding: str
) -> None:
    request = json.dumps(TRACES_AS_JSON).encode()
    body = (
        zlib.compress(request)
        if encoding == "deflate"
        else gzip.compress(request[:99]) + gzip.compress(request[99:])
    )
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    assert post(receiver, body[:-9], "/v1/traces", headers)[0] == 400
    assert receiver.attempts("traces") == []
    assert post(receiver, body, "/v1/traces", headers)[0] == 200
    assert [span.name for span in receiver.spans()] == ["GET /users"]


def test_a_decompression_bomb_over_grpc_is_resource_exhausted(receiver: Receiver) -> None:
    """gRPC's own limit counts the unpacked bytes."""
    target = receiver.grpc_endpoint.removeprefix("http://")
    with grpc.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(30 * 2**20), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert receiver.attempts() == []


def test_a_trailer_without_an_end_is_refused(receiver: Receiver) -> None:
    reply = by_hand(receiver, "Transfer-Encoding: chunked", b"0\r\n" + b"X: y\r\n" * 200)
    assert reply.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_and_log_records_of_the_sdk_are_received(receiver: Receiver, protocol: str) -> None:
    spans: Any = GrpcSpanExporter if protocol == "grpc" else HttpSpanExporter
    logs: Any = GrpcLogExporter if protocol == "grpc" else HttpLogExporter
    at = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    tracers, loggers = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(
        SimpleSpanProcessor(spans(endpoint=at if protocol == "grpc" else f"{at}/v1/traces"))
    )
    loggers.add_log_record_processor(
        SimpleLogRecordProcessor(logs(endpoint=at if protocol == "grpc" else f"{at}/v1/logs"))
    )
    with tracers.get_tracer("t").start_as_current_span("root"):
        loggers.get_logger("l").emit(body="inside", attributes={"n": 1})
    tracers.shutdown()
    loggers.shutdown()
    (record,) = receiver.records()
    (span,) = receiver.wait_until(receiver.spans)
    assert (record.body, record.scope, record.attributes) == ("inside", "l", {"n": 1})
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
    assert (len(span.trace_id), len(span.span_id), span.kind, span.status) == (32, 16, "internal", "unset")


@pytest.mark.parametrize(
    ("path", "response", "rejected"),
    [
        ("/v1/traces", ExportTraceServiceResponse, "rejected_spans"),
        ("/v1/logs", ExportLogsServiceResponse, "rejected_log_records"),
    ],
)
def test_a_partial_success_uses_the_message_of_each_signal(
    receiver: Receiver, path: str, response: Any, rejected: str
) -> None:
    receiver.answer = partial(3, "too old")
    _, _, body = post(receiver, b"", path)
    success = response.FromString(body).partial_success
    assert (getattr(success, rejected), success.error_message) == (3, "too old")


# --- TLS ----------------------------------------------------------------------------------------------


def trust(protocol: str, certificates: Certificates, client: str | None = None) -> dict[str, Any]:
    """Return an exporter's options: the trusted authority and the client certificate."""
    pair = {
        None: None,
        "client": (certificates.client, certificates.client_key),
        "stranger": (certificates.stranger, certificates.stranger_key),
    }[client]
    if protocol == "http":
        options = {"certificate_file": str(certificates.ca)}
        if pair:
            options |= {"client_certificate_file": str(pair[0]), "client_key_file": str(pair[1])}
        return options
    return {
        "credentials": grpc.ssl_channel_credentials(
            certificates.ca.read_bytes(),
            pair[1].read_bytes() if pair else None,
            pair[0].read_bytes() if pair else None,
        )
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_serves_clients_that_trust_the_authority(
    certificates: Certificates, metrics: MetricsData, send: Send, protocol: str
) -> None:
    with Receiver(tls=certificates.tls) as receiver:
        assert receiver.grpc_endpoint.startswith("https://")
        options = trust(protocol, certificates)
        assert send(receiver, protocol, metrics, **options) is MetricExportResult.SUCCESS
        assert only(receiver.points("polls")).value == 7


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mtls_serves_only_its_own_clients(
    certificates: Certificates, metrics: MetricsData, send: Send, protocol: str
) -> None:
    with Receiver(tls=certificates.mtls) as receiver:
        for client in (None, "stranger"):
            options = trust(protocol, certificates, client)
            assert send(receiver, protocol, metrics, timeout=1, **options) is MetricExportResult.FAILURE
        assert receiver.attempts() == []
        options = trust(protocol, certificates, "client")
        assert send(receiver, protocol, metrics, **options) is MetricExportResult.SUCCESS
        assert len(receiver.requests()) == 1


def test_a_client_without_tls_fails_and_the_next_is_served(
    certificates: Certificates, metrics: MetricsData, send: Send
) -> None:
    with Receiver(tls=certificates.tls) as receiver, socket.socket() as plain:
        plain.connect(("127.0.0.1", receiver.http_port))
        options = trust("http", certificates)
        assert send(receiver, "http", metrics, **options) is MetricExportResult.SUCCESS
        plain.sendall(b"POST /v1/metrics HTTP/1.1\r\n\r\n")
        plain.settimeout(5)
        assert not plain.recv(1000).startswith(b"HTTP/1.1 200")
        assert len(receiver.attempts()) == 1


# --- as a process -------------------------------------------------------------------------------------


def test_as_a_process_it_prints_its_ports_and_each_batch(
    start_process: Callable[..., Process], metrics: MetricsData
) -> None:
    process = start_process([sys.executable, "-m", "poller.receiver"])
    endpoints = json.loads(process.wait_for_line(r'^\{"grpc"', stream="stdout").string)
    for exporter in (
        GrpcExporter(endpoint=endpoints["grpc"]),
        HttpExporter(endpoint=f"{endpoints['http']}/v1/metrics"),
    ):
        assert exporter.export(metrics) is MetricExportResult.SUCCESS
        exporter.shutdown()
    batches = [
        json.loads(process.wait_for_line(rf'"protocol": "{protocol}"', stream="stdout").string)
        for protocol in PROTOCOLS
    ]
    for batch in batches:
        values = {point["metric"]: point for point in batch["points"] if point["metric"] != "users_total"}
        assert values["polls"]["value"] == 7
        assert values["polls"]["attributes"] == {"outcome": "ok"}
        assert values["duration"]["value"]["buckets"] == [1, 2, 1]
        users = [point["value"] for point in batch["points"] if point["metric"] == "users_total"]
        assert sorted(users) == [-1, LARGEST]
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert process.stderr == ""


def test_as_a_process_it_ends_with_its_standard_input_if_configured() -> None:
    command = [sys.executable, "-m", "poller.receiver", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["grpc"].startswith("http://127.0.0.1:")
        process.stdin.close()
        assert process.wait() == 0


def test_the_callback_for_each_request_gets_the_stored_request(metrics: MetricsData, send: Send) -> None:
    received: list[Received] = []
    with Receiver(on_request=received.append) as receiver:
        send(receiver, "grpc", metrics)
        assert received == receiver.attempts()
        assert len(received) == 1

"""`poller conform` accepts a server that matches the catalogue, and reports each difference."""

from __future__ import annotations

import base64
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    DataPointFlags,
    Metric,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from poller.events._privacy.attributes import is_denied
from poller.events.catalog import GenerationName, declared, generation
from poller.model.diagnostics import Diagnostic, failed
from poller.model.otlp_endpoint import Signal
from poller.receiver.listener import Transport
from poller.receiver.receiver import Receiver
from poller.receiver.signals import ExportRequest
from poller.tools.conform.conformance import ConformanceCheck, Require
from poller.tools.conform.personal_data import ADVICE, LONGEST, personal_data, windows
from tests.bed.documentation import all_blocks, script
from tests.bed.otlp_server import REQUESTS, SERVICE, send_everything
from tests.bed.process import ROOT, Process

Start = Callable[..., Process]


@dataclass
class Stream:
    """Requests of a conforming server, which a test can change."""

    requests: list[ExportRequest]

    def copy(self) -> Stream:
        copies: list[ExportRequest] = []
        for request in self.requests:
            copy = type(request)()
            copy.CopyFrom(request)  # type: ignore[arg-type]  # of the very same type
            copies.append(copy)
        return Stream(copies)

    def scope(self) -> Any:
        """The scope with the metrics."""
        (request,) = [item for item in self.requests if isinstance(item, ExportMetricsServiceRequest)]
        return request.resource_metrics[0].scope_metrics[0]

    def metric(self, name: str) -> Metric:
        match: Metric = next(metric for metric in self.scope().metrics if metric.name == name)
        return match

    def span(self, name: str) -> Span:
        return next(
            span
            for request in self.requests
            if isinstance(request, ExportTraceServiceRequest)
            for span in request.resource_spans[0].scope_spans[0].spans
            if span.name == name
        )

    def record(self) -> LogRecord:
        (request,) = [item for item in self.requests if isinstance(item, ExportLogsServiceRequest)]
        return request.resource_logs[0].scope_logs[0].log_records[0]

    def examined(
        self,
        of: GenerationName = "document",
        require: Require = "all",
        service: str | None = None,
        ignore: tuple[str, ...] = (),
    ) -> list[Diagnostic]:
        metrics = tuple(declared(of).values())
        examination = ConformanceCheck(metrics, units=generation(of).units, require=require, service=service)
        for request in self.requests:
            examination.take(request)
        return examination.diagnostics(ignore)


def sent(generation: GenerationName, protocol: Transport) -> Stream:
    with Receiver() as receiver:
        send_everything(
            receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint, protocol, generation
        )
        signals: tuple[Signal, ...] = ("metrics", "traces", "logs")
        return Stream([received.request for signal in signals for received in receiver.requests(signal)])


@pytest.fixture(scope="module")
def good() -> Stream:
    return sent("document", "grpc")


@pytest.fixture(scope="module")
def of_server() -> Stream:
    return sent("v0.9.4", "http")


def text(value: str) -> AnyValue:
    return AnyValue(string_value=value)


def pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=text(value))


def failures(diagnostics: list[Diagnostic]) -> dict[str, str]:
    """Failed diagnostics, without the summaries."""
    return {
        f"{diagnostic.rule} {diagnostic.subject}": diagnostic.message
        for diagnostic in diagnostics
        if diagnostic.severity == "error" and diagnostic.subject
    }


# --- A conforming server ------------------------------------------------------------------------------


def test_a_conforming_server_passes(good: Stream) -> None:
    diagnostics = good.examined()
    assert not failed(diagnostics)
    assert [(diagnostic.rule, diagnostic.severity, diagnostic.message) for diagnostic in diagnostics] == [
        ("metrics", "ok", diagnostics[0].message),
        ("spans", "ok", "2 examined, no difference"),
        ("log_records", "ok", "1 examined, no difference"),
    ]
    assert diagnostics[0].message.startswith("21 of 21 received in ")


def test_a_conforming_server_with_the_names_of_its_release_passes(of_server: Stream) -> None:
    assert not failed(of_server.examined("v0.9.4"))


def test_the_server_of_that_release_sends_no_units_and_passes(of_server: Stream) -> None:
    stream = of_server.copy()
    for metric in stream.scope().metrics:
        metric.unit = ""
    assert not failed(stream.examined("v0.9.4"))
    stream.metric("obscura_logins_total").unit = "{message}"
    assert list(failures(stream.examined("v0.9.4"))) == ["wrong_unit obscura_logins_total"]


def test_trace_context_as_attributes_is_accepted(good: Stream) -> None:
    stream = good.copy()
    record = stream.record()
    record.attributes.extend([pair("trace_id", record.trace_id.hex()), pair("span_id", record.span_id.hex())])
    record.trace_id, record.span_id = b"", b""
    assert not failed(stream.examined())


# --- Differences --------------------------------------------------------------------------------------


def rename(stream: Stream) -> None:
    stream.metric("messages_sent_total").name = "message_sent_total"


def invent(stream: Stream) -> None:
    stream.scope().metrics.add(name="cpu", unit="1").gauge.data_points.add(as_double=0.5)


def omit_a_metric(stream: Stream) -> None:
    metrics = stream.scope().metrics
    metrics.remove(stream.metric("keys_takeovers_total"))


def make_a_gauge(stream: Stream) -> None:
    metric = stream.metric("users_registered_total")
    metric.gauge.data_points.extend(metric.sum.data_points)


def make_a_counter(stream: Stream) -> None:
    stream.metric("websocket_active_connections").sum.is_monotonic = True


def make_it_non_monotonic(stream: Stream) -> None:
    stream.metric("users_registered_total").sum.is_monotonic = False


def decrease_a_counter(stream: Stream) -> None:
    points = stream.metric("users_registered_total").sum.data_points
    later = points.add()
    later.CopyFrom(points[0])
    later.time_unix_nano += 1
    later.as_int -= 1


def decrease_a_histogram(stream: Stream) -> None:
    points = stream.metric("attachments_upload_size_bytes").histogram.data_points
    later = points.add()
    later.CopyFrom(points[0])
    later.time_unix_nano += 1
    later.count = 0
    later.bucket_counts[:] = [0 for _ in later.bucket_counts]


def change_the_unit(stream: Stream) -> None:
    stream.metric("http_request_duration_seconds").unit = "ms"


def remove_the_unit(stream: Stream) -> None:
    stream.metric("attachments_upload_size_bytes").unit = ""


def add_a_unit(stream: Stream) -> None:
    stream.metric("health_status").unit = "1"


def add_an_attribute(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].attributes.append(pair("user", "ada"))


def drop_an_attribute(stream: Stream) -> None:
    del stream.metric("rate_limit_decisions_total").sum.data_points[0].attributes[:]


def misspell_a_value(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].attributes[0].value.string_value = "sucess"


def send_a_boolean(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].attributes[0].value.bool_value = True


def exceed_the_cardinality_limit(stream: Stream) -> None:
    # As the SDKs of Go, JavaScript and Rust do.
    attributes = stream.metric("http_requests_total").sum.data_points[0].attributes
    del attributes[:]
    attributes.add(key="otel.metric.overflow").value.bool_value = True


def send_an_address_as_value(stream: Stream) -> None:
    stream.metric("health_status").gauge.data_points[0].attributes[0].value.string_value = "203.0.113.7"


def route(stream: Stream) -> AnyValue:
    (attribute,) = stream.metric("http_request_duration_seconds").histogram.data_points[0].attributes
    return attribute.value


def send_no_route(stream: Stream) -> None:
    route(stream).ClearField("string_value")  # as JavaScript's SDK for null and undefined


def send_an_empty_route(stream: Stream) -> None:
    route(stream).string_value = ""


def send_the_path(stream: Stream) -> None:
    route(stream).string_value = "/v1/devices/0190163d-8694-739b-aea5-966c26f8ad91/keys"


def send_the_query_string(stream: Stream) -> None:
    route(stream).string_value = "/v1/gateway?ticket=1"


def server_span(name: str, value: str) -> Callable[[Stream], None]:
    return lambda stream: stream.span("POST /v1/messages").attributes.append(pair(name, value))


def name_a_span(stream: Stream) -> None:
    stream.span("POST /v1/messages").name = "POST /v1/messages?to=ada"


def fail_a_span(stream: Stream) -> None:
    stream.span("INSERT messages").status.message = "no user ada@example.org"


def add_a_token_to_an_event(stream: Stream) -> None:
    stream.span("INSERT messages").events[0].attributes.append(
        pair("exception.message", "bearer abcdefgh12345 is refused")
    )


def add_an_address_to_a_link(stream: Stream) -> None:
    stream.span("INSERT messages").links.add().attributes.append(pair("client.address", "203.0.113.7"))


def make_the_peer_a_client(stream: Stream) -> None:
    span = stream.span("INSERT messages")
    span.kind = Span.SPAN_KIND_SERVER
    names = ("http.request.method", "url.path", "request.id")
    span.attributes.extend(item for item in stream.span("POST /v1/messages").attributes if item.key in names)


def log_an_address(stream: Stream) -> None:
    stream.record().body.string_value = '203.0.113.7:5000 - "GET /" 200'


def log_a_nested_token(stream: Stream) -> None:
    stream.record().body.kvlist_value.CopyFrom(KeyValueList(values=[pair("authorization", "x")]))


def log_an_attribute(stream: Stream) -> None:
    stream.record().attributes.append(pair("remote_addr", "203.0.113.7"))


def remove_the_trace_id(stream: Stream) -> None:
    stream.record().trace_id = b""


def send_zero_ids(stream: Stream) -> None:
    stream.record().trace_id = bytes(16)


# --- Personal data in each place of a request


def requests_of(stream: Stream) -> Iterator[Any]:
    """The resource part of each request, for all signals."""
    for request in stream.requests:
        if isinstance(request, ExportMetricsServiceRequest):
            yield from request.resource_metrics
        elif isinstance(request, ExportTraceServiceRequest):
            yield from request.resource_spans
        else:
            yield from request.resource_logs


def put_in_the_resource(stream: Stream) -> None:
    for item in requests_of(stream):
        item.resource.attributes.append(pair("process.command_args", "--password=hunter2"))


def name_a_client_in_the_resource(stream: Stream) -> None:
    for item in requests_of(stream):
        item.resource.attributes.append(pair("enduser.email", "x"))


def put_in_a_metrics_scope(stream: Stream) -> None:
    stream.scope().scope.attributes.append(pair("note", "of ada@example.org"))


def put_in_a_tracers_scope(stream: Stream) -> None:
    for item in requests_of(stream):
        if hasattr(item, "scope_spans"):
            item.scope_spans[0].scope.attributes.append(pair("remote_addr", "203.0.113.7"))


def put_in_a_loggers_scope(stream: Stream) -> None:
    for item in requests_of(stream):
        if hasattr(item, "scope_logs"):
            item.scope_logs[0].scope.attributes.append(
                pair("note", "ghp_0123456789abcdefABCDEF0123456789abcd")
            )


def put_in_an_exemplar(stream: Stream) -> None:
    point = stream.metric("http_request_duration_seconds").histogram.data_points[0]
    point.exemplars.add(as_double=1).filtered_attributes.append(pair("url.query", "to=ada"))


def write_in_an_exemplar(stream: Stream) -> None:
    point = stream.metric("messages_sent_total").sum.data_points[0]
    point.exemplars.add(as_int=1).filtered_attributes.append(pair("path", "/users/ada%40example.org"))


def put_in_the_trace_state(stream: Stream) -> None:
    stream.span("POST /v1/messages").trace_state = "rojo=00f067aa0ba902b7,congo=ada@example.org"


def put_in_the_trace_state_of_a_link(stream: Stream) -> None:
    stream.span("INSERT messages").links.add().trace_state = "congo=203.0.113.7"


def name_an_event(stream: Stream) -> None:
    stream.span("INSERT messages").events[0].name = "stored for ada@example.org"


def send_bytes(stream: Stream) -> None:
    value = stream.span("INSERT messages").attributes.add(key="payload").value
    value.bytes_value = b"from ada@example.org"


def name_an_attribute_after_a_client(stream: Stream) -> None:
    stream.span("INSERT messages").attributes.append(pair("count.of.ada@example.org.email", "x"))


def add_an_unknown_metric_with_a_client(stream: Stream) -> None:
    point = stream.scope().metrics.add(name="cpu").gauge.data_points.add(as_double=0.5)
    point.attributes.append(pair("peer", "ada"))


# --- Spans without the structure of the design document


def drop(stream: Stream, name: str) -> None:
    attributes = stream.span("POST /v1/messages").attributes
    attributes.remove(next(item for item in attributes if item.key == name))


def dropping(*names: str) -> Callable[[Stream], None]:
    def mutate(stream: Stream) -> None:
        for name in names:
            drop(stream, name)

    return mutate


def use_former_names(stream: Stream) -> None:
    for attribute in stream.span("POST /v1/messages").attributes:
        former = {"http.request.method": "http.method", "url.path": "http.target"}
        attribute.key = former.get(attribute.key, attribute.key)


def set_status(value: AnyValue) -> Callable[[Stream], None]:
    def mutate(stream: Stream) -> None:
        for attribute in stream.span("POST /v1/messages").attributes:
            if attribute.key == "http.response.status_code":
                attribute.value.CopyFrom(value)

    return mutate


def open_a_session_without_a_user(stream: Stream) -> None:
    set_status(AnyValue(int_value=101))(stream)
    drop(stream, "user.id")


def make_the_root_internal(stream: Stream) -> None:
    stream.span("POST /v1/messages").kind = Span.SPAN_KIND_INTERNAL


def lose_the_id(stream: Stream) -> None:
    stream.span("INSERT messages").span_id = b"short"


def end_before_the_start(stream: Stream) -> None:
    stream.span("INSERT messages").end_time_unix_nano = 1


def invent_a_method(stream: Stream) -> None:
    for attribute in stream.span("POST /v1/messages").attributes:
        if attribute.key == "http.request.method":
            attribute.value.string_value = "BREW"


# --- Impossible values


def answer_as_a_teapot(stream: Stream) -> None:
    for attribute in stream.metric("http_requests_total").sum.data_points[0].attributes:
        if attribute.key == "status":
            attribute.value.string_value = "teapot"


def number(name: str, value: float) -> Callable[[Stream], None]:
    def mutate(stream: Stream) -> None:
        metric = stream.metric(name)
        points = metric.gauge.data_points if metric.HasField("gauge") else metric.sum.data_points
        points[0].as_double = value

    return mutate


def remove_the_temporality(name: str) -> Callable[[Stream], None]:
    def mutate(stream: Stream) -> None:
        metric = stream.metric(name)
        data = metric.sum if metric.HasField("sum") else metric.histogram
        data.aggregation_temporality = 0  # type: ignore[assignment]

    return mutate


def remove_the_value(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].ClearField("value")


def remove_the_time(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].time_unix_nano = 0


def start_later(stream: Stream) -> None:
    point = stream.metric("messages_sent_total").sum.data_points[0]
    point.start_time_unix_nano = point.time_unix_nano + 1


def histogram(name: str, **values: Any) -> Callable[[Stream], None]:
    def mutate(stream: Stream) -> None:
        point = stream.metric(name).histogram.data_points[0]
        for field, value in values.items():
            if isinstance(value, list):
                getattr(point, field)[:] = value
            else:
                setattr(point, field, value)

    return mutate


def be_too_severe(stream: Stream) -> None:
    stream.record().severity_number = 99  # type: ignore[assignment]


SIZES = "attachments_upload_size_bytes"

MUTATIONS: list[tuple[Callable[[Stream], None], dict[str, str]]] = [
    (
        rename,
        {
            "missing_metric messages_sent_total": "was not sent",
            "unknown_metric message_sent_total": "not in the catalogue",
        },
    ),
    (invent, {"unknown_metric cpu": "a gauge that is not in the catalogue"}),
    (
        omit_a_metric,
        {"missing_metric keys_takeovers_total": "was not sent; the catalogue has it as a counter"},
    ),
    (make_a_gauge, {"wrong_type users_registered_total": "is a gauge; the catalogue has a counter"}),
    (
        make_a_counter,
        {"wrong_type websocket_active_connections": "is a monotonic sum; the catalogue has an up-down"},
    ),
    (make_it_non_monotonic, {"not_monotonic users_registered_total": "is a non-monotonic sum"}),
    (decrease_a_counter, {"not_monotonic users_registered_total": "decreased from 1 to 0 without a restart"}),
    (decrease_a_histogram, {"not_monotonic attachments_upload_size_bytes": "decreased from 1 to 0"}),
    (
        change_the_unit,
        {"wrong_unit http_request_duration_seconds": "has the unit 'ms'; the catalogue has 's'"},
    ),
    (remove_the_unit, {"wrong_unit attachments_upload_size_bytes": "has no unit; the catalogue has 'By'"}),
    (add_a_unit, {"wrong_unit health_status": "has the unit '1'; it must have none"}),
    (
        add_an_attribute,
        {"undeclared_attribute messages_sent_total{user}": "is not declared; declared attributes: status"},
    ),
    (drop_an_attribute, {"missing_attribute rate_limit_decisions_total{status}": "is missing"}),
    (
        misspell_a_value,
        {"undeclared_value messages_sent_total{status}": "is 'sucess', which is not declared; declared"},
    ),
    (
        send_a_boolean,
        {"undeclared_value messages_sent_total{status}": "is 'true', which is not declared; declared values"},
    ),
    (
        exceed_the_cardinality_limit,
        {"too_many_series http_requests_total": "has more series than its SDK's limit"},
    ),
    (send_no_route, {"missing_attribute http_request_duration_seconds{route}": "is empty"}),
    (send_an_empty_route, {"missing_attribute http_request_duration_seconds{route}": "is empty"}),
    (
        send_an_address_as_value,
        {"undeclared_value health_status{component}": "is (an IP address), which is not declared"},
    ),
    (
        send_the_path,
        {"undeclared_value http_request_duration_seconds{route}": "a path with an id instead of a template"},
    ),
    (
        send_the_query_string,
        {"personal_text http_request_duration_seconds{route}": "contains a query string"},
    ),
    (
        server_span("client.address", "203.0.113.7"),
        {"personal_attribute client.address": "on span 'POST /v1/messages'"},
    ),
    (
        server_span("user_agent.original", "curl/8"),
        {"personal_attribute user_agent.original": "identifies or locates a client"},
    ),
    (
        server_span("http.request.header.cookie", "a=1"),
        {"personal_attribute http.request.header.cookie": "identifies or locates a client"},
    ),
    (server_span("url.query", "a=1"), {"personal_attribute url.query": "identifies or locates a client"}),
    (server_span("http.target", "/a?b=1"), {"personal_text http.target": "contains a query string"}),
    (server_span("db.statement", "x"), {"old_convention db.statement": "is an outdated name, on span"}),
    (server_span("note", "to ada@example.org"), {"personal_text note": "contains an e-mail address"}),
    (server_span("note", "peer 10.1.2.3"), {"personal_text note": "contains an IP address"}),
    (name_a_span, {"personal_text span name": "contains a query string"}),
    (fail_a_span, {"personal_text span status": "contains an e-mail address, on span 'INSERT messages'"}),
    (
        add_a_token_to_an_event,
        {"personal_text exception.message": "contains a token, on span 'INSERT messages', event 'stored'"},
    ),
    (add_an_address_to_a_link, {"personal_attribute client.address": "on span 'INSERT messages', a link"}),
    (make_the_peer_a_client, {"personal_attribute network.peer.address": "on span 'INSERT messages'"}),
    (log_an_address, {"personal_text log body of server.messages": "contains an IP address"}),
    (log_a_nested_token, {"personal_text log body of server.messages": "contains a token"}),
    (log_an_attribute, {"personal_attribute remote_addr": "on log record of server.messages"}),
    (
        remove_the_trace_id,
        {"no_trace_context log records of server.messages": "have no trace_id and span_id"},
    ),
    (send_zero_ids, {"no_trace_context log records of server.messages": "have no trace_id and span_id"}),
    (put_in_the_resource, {"personal_text process.command_args": "contains a password, on the resource"}),
    (name_a_client_in_the_resource, {"personal_attribute enduser.email": "a client, on the resource"}),
    (put_in_a_metrics_scope, {"personal_text note": "contains an e-mail address, on scope 'poller.events'"}),
    (put_in_a_tracers_scope, {"personal_attribute remote_addr": "a client, on scope 'the server'"}),
    (put_in_a_loggers_scope, {"personal_text note": "contains a token, on scope 'server.messages'"}),
    (
        put_in_an_exemplar,
        {"personal_attribute url.query": "a client, on an exemplar of 'http_request_duration_seconds'"},
    ),
    (
        write_in_an_exemplar,
        {"personal_text path": "contains an e-mail address, on an exemplar of 'messages_se"},
    ),
    (put_in_the_trace_state, {"personal_text tracestate": "contains an e-mail address, on span 'POST /v1"}),
    (
        put_in_the_trace_state_of_a_link,
        {"personal_text tracestate": "contains an IP address, on span 'INSERT"},
    ),
    (name_an_event, {"personal_text event name": "contains an e-mail address, on span 'INSERT messages'"}),
    (send_bytes, {"personal_text payload": "contains an e-mail address, on span 'INSERT messages'"}),
    (name_an_attribute_after_a_client, {"personal_attribute (an e-mail address)": "locates a client"}),
    (
        add_an_unknown_metric_with_a_client,
        {
            "unknown_metric cpu": "not in the catalogue",
            "personal_attribute peer": "a client, on metric 'cpu'",
        },
    ),
    (dropping("request.id"), {"missing_attribute request.id": "is missing, on span 'POST /v1/messages'"}),
    (
        dropping("http.request.method", "url.path"),
        {"missing_attribute http.request.method": "is missing", "missing_attribute url.path": "is missing"},
    ),
    (
        use_former_names,
        {
            "old_convention http.method": "is an outdated name",
            "old_convention http.target": "is an outdated name",
        },
    ),
    (
        open_a_session_without_a_user,
        {"missing_attribute user.id": "the root span of a WebSocket session must have it"},
    ),
    (make_the_root_internal, {"span_kind root span": "has the kind internal, on span 'POST /v1/messages'"}),
    (lose_the_id, {"impossible_value span ids": "on span 'INSERT messages'"}),
    (end_before_the_start, {"impossible_value span times": "end before they start"}),
    (
        set_status(AnyValue(string_value="teapot")),
        {"impossible_value http.response.status_code": "is not from 100 to 599"},
    ),
    (
        set_status(AnyValue(int_value=99)),
        {"impossible_value http.response.status_code": "is not from 100 to 599"},
    ),
    (invent_a_method, {"impossible_value http.request.method": "is not an HTTP method, on span 'POST"}),
    (
        answer_as_a_teapot,
        {"impossible_value http_requests_total{status}": "is 'teapot', which is not a status"},
    ),
    (
        number("health_status", 5),
        {"impossible_value health_status": "is 5; it must be 1 (healthy) or 0 (unhealthy)"},
    ),
    (number("messages_sent_total", -3), {"impossible_value messages_sent_total": "is -3, but cannot be be"}),
    (number("messages_sent_total", 1.5), {"impossible_value messages_sent_total": "is 1.5, but a count has"}),
    (
        number("messages_sent_total", math.nan),
        {"impossible_value messages_sent_total": "is nan, which is not"},
    ),
    (number("db_pool_idle_connections", math.inf), {"impossible_value db_pool_idle_connections": "is inf, "}),
    (
        remove_the_temporality("messages_sent_total"),
        {"temporality messages_sent_total": "has no temporality"},
    ),
    (remove_the_temporality(SIZES), {f"temporality {SIZES}": "has no temporality"}),
    (remove_the_value, {"impossible_value messages_sent_total": "has no value"}),
    (remove_the_time, {"impossible_value messages_sent_total": "has no time"}),
    (start_later, {"impossible_value messages_sent_total": "has a start time after its time"}),
    (
        histogram(SIZES, sum=math.nan),
        {f"impossible_value {SIZES}": "has the sum nan, which is not a finite number"},
    ),
    (histogram(SIZES, min=-1.0), {f"impossible_value {SIZES}": "has the min -1, which cannot be below 0"}),
    (histogram(SIZES, count=77), {f"impossible_value {SIZES}": "has buckets whose counts do not add up"}),
    (histogram(SIZES, bucket_counts=[1]), {f"impossible_value {SIZES}": "must have one bucket more than bo"}),
    (be_too_severe, {"impossible_value severity": "is not from 0 to 24, on log record of server.messages"}),
]


@pytest.mark.parametrize(
    ("mutate", "expected"), MUTATIONS, ids=[" ".join(expected) for _, expected in MUTATIONS]
)
def test_each_mutation_is_the_only_difference(
    good: Stream, mutate: Callable[[Stream], None], expected: dict[str, str]
) -> None:
    stream = good.copy()
    mutate(stream)
    diagnostics = stream.examined()
    wrong = failures(diagnostics)

    assert failed(diagnostics)
    assert wrong.keys() == expected.keys(), wrong
    for name, words in expected.items():
        assert words in wrong[name]
    output = "\n".join(diagnostic.message + str(diagnostic.facts) for diagnostic in diagnostics)
    for secret in ("203.0.113.7", "ada@example.org", "abcdefgh12345"):
        assert secret not in output


def test_a_similar_name_is_suggested(good: Stream) -> None:
    stream = good.copy()
    rename(stream)
    (unknown,) = (item for item in stream.examined() if item.rule == "unknown_metric")
    assert unknown.advice == "rename it to 'messages_sent_total' if you mean that metric"


def test_an_undeclared_attribute_that_identifies_a_client_has_its_own_advice(good: Stream) -> None:
    stream = good.copy()
    attributes = stream.metric("messages_sent_total").sum.data_points[0].attributes
    attributes.extend([pair("user.name", "ada"), pair("shard", "7")])
    advices = {item.subject: item.advice for item in stream.examined() if item.rule == "undeclared_attribute"}
    assert advices == {"messages_sent_total{user.name}": ADVICE, "messages_sent_total{shard}": None}


def test_different_problems_of_a_metric_are_reported_separately(good: Stream) -> None:
    stream = good.copy()
    histogram(SIZES, sum=math.nan, min=-1.0, max=-1.0)(stream)
    assert [item.message for item in stream.examined() if item.rule == "impossible_value"] == [
        "has the max -1, which cannot be below 0",
        "has the min -1, which cannot be below 0",
        "has the sum nan, which is not a finite number",
    ]


def test_late_points_are_ignored(good: Stream) -> None:
    stream = good.copy()
    points = stream.metric("users_registered_total").sum.data_points
    (first,) = points
    first.as_int = 5
    late, after = points.add(), points.add()
    late.CopyFrom(first)
    late.time_unix_nano -= 1
    late.as_int = 1
    after.CopyFrom(first)
    after.time_unix_nano += 1
    assert not failed(stream.examined())
    # A late point does not replace the newest one, with which later points are compared.
    after.as_int = 4
    assert failures(stream.examined()) == {
        "not_monotonic users_registered_total": "decreased from 5 to 4 without a restart"
    }


def test_a_series_that_ends_is_not_a_difference(good: Stream) -> None:
    stream = good.copy()
    point = stream.metric("messages_sent_total").sum.data_points[0]
    point.ClearField("value")
    point.flags = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    assert not failed(stream.examined())


def test_spans_without_any_root_are_a_warning(good: Stream) -> None:
    stream = good.copy()
    stream.span("POST /v1/messages").kind = Span.SPAN_KIND_CLIENT
    diagnostics = stream.examined()
    assert not failed(diagnostics)
    assert [item.rule for item in diagnostics if item.severity == "warning"] == ["missing_root"]


def test_outdated_names_on_the_spans_of_libraries_are_a_warning(good: Stream) -> None:
    stream = good.copy()
    stream.span("INSERT messages").attributes.append(pair("db.statement", "x"))
    diagnostics = stream.examined()
    assert not failed(diagnostics)
    assert [(item.rule, item.subject) for item in diagnostics if item.severity == "warning"] == [
        ("old_convention", "db.statement")
    ]
    server_span("db.statement", "x")(stream)
    assert list(failures(stream.examined())) == ["old_convention db.statement"]


def test_an_rpc_needs_no_http_method(good: Stream) -> None:
    stream = good.copy()
    dropping("http.request.method", "url.path")(stream)
    server_span("rpc.system.name", "grpc")(stream)
    assert not failed(stream.examined())


def test_names_that_a_client_chooses_do_not_fill_the_report(good: Stream) -> None:
    stream = good.copy()
    for count in range(1100):
        stream.span("INSERT messages").attributes.append(pair(f"{count}{'x' * 5000}.email", "x"))
    diagnostics = stream.examined()
    personal = [item for item in diagnostics if item.rule == "personal_attribute"]
    assert len(personal) == 1000
    assert max(len(item.subject or "") for item in personal) < 300
    (more,) = [item for item in diagnostics if item.rule == "differences"]
    assert more.message.startswith("100 more")


@pytest.mark.parametrize(
    ("text", "expected_kind"),
    [
        ("GET /users/ada%40example.org HTTP/1.1", "an e-mail address"),
        ("GET /users/ada%2540example.org", "an e-mail address"),
        ("peer%20%5B2001%3Adb8%3A%3A1%5D", "an IP address"),
        ("from 2001:db8::1 to", "an IP address"),
        ("auth Bearer%20abcdefgh12345", "a token"),
        ("user_agent=curl", "a user agent"),
        ("userAgent: okhttp", "a user agent"),
        ('{"userAgent":"okhttp"}', "a user agent"),
        (r"{\"user-agent\": \"okhttp\"}", "a user agent"),
        ("username=ada", "a user name"),
        ("'username': 'ada'", "a user name"),
        ("phone=5551234", "a phone number"),
        ("phoneNumber: 555", "a phone number"),
        ("sessionid=5ab", "a session id"),
        ("JSESSIONID=5ab", "a session id"),
        ("private_key=MIIE", "a private key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("email=ada", "an e-mail address"),
        ("password: swordfish", "a password"),
        ("api-key=5", "a token"),
        ("ghp_0123456789abcdefABCDEF0123456789abcd", "a token"),
        ("key AKIAIOSFODNN7EXAMPLE", "a token"),
        (f"{'x ' * 4000}ada@example.org", "an e-mail address"),
        *((f"{'x' * offset} Bearer abcdefgh12345", "a token") for offset in range(600, 1200, 7)),
    ],
)
def test_texts_with_personal_data(text: str, expected_kind: str) -> None:
    assert personal_data(text) == expected_kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT * FROM users WHERE username=$1 AND token = ?",
        "username=[redacted] password=*** phone=null",
        "invalid token: signature mismatch",
        "wrong password: try again",
        "50% of 3, 100%",
        "session closed: id=5",
        "ws.session_id=5",
        "phone book, user name, private key",
        "x" * 100_000,
    ],
)
def test_texts_without_personal_data(text: str) -> None:
    assert personal_data(text) is None


@pytest.mark.parametrize(
    ("name", "personal"),
    [
        *((name, True) for name in ("userAgent", "app.clientIp", "user.phoneNumber", "private_key", "peer")),
        *((name, False) for name in ("service.name", "host.ip", "user.id", "request.id", "ws.session_id")),
    ],
)
def test_personal_attribute_names(name: str, personal: bool) -> None:
    assert is_denied(name) is personal


@pytest.mark.parametrize(
    "unit", ["a", "x@a.", "eyJ", "?", "%25", "://", "1.", "a:", "token: ", "username=", " "]
)
def test_the_time_for_a_text_is_bounded(unit: str) -> None:
    """The time of some patterns grows with the square of the searched length."""
    for size in (1, 2, 4, 8):
        parts = list(windows(unit * (LONGEST * size // len(unit))))
        assert max(map(len, parts)) <= 1024
        assert sum(map(len, parts)) <= 2 * LONGEST


def test_other_boundaries_are_a_warning(good: Stream) -> None:
    stream = good.copy()
    for point in stream.metric("http_request_duration_seconds").histogram.data_points:
        point.explicit_bounds[:] = [0, 5, 10, 25, 50, 75, 100, 250, 500, 1000]
        point.bucket_counts[:] = [point.count, *[0] * 10]
    diagnostics = stream.examined()
    (warning,) = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "warning"]
    assert not failed(diagnostics)
    assert (warning.rule, warning.subject) == ("boundaries", "http_request_duration_seconds")
    assert (
        "has the boundaries 0, 5, 10 ... 1000; recommended are 0.005, 0.01, 0.025 ... 120 (2 times)"
        in warning.message
    )


def test_delta_is_a_warning(good: Stream) -> None:
    stream = good.copy()
    stream.metric("messages_sent_total").sum.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    diagnostics = stream.examined()
    (warning,) = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "warning"]
    assert not failed(diagnostics)
    assert (warning.rule, warning.subject) == ("temporality", "messages_sent_total")


def test_a_counter_may_be_reset_by_a_restart(good: Stream) -> None:
    stream = good.copy()
    points = stream.metric("messages_sent_total").sum.data_points
    later = points.add()
    later.CopyFrom(points[0])
    later.time_unix_nano += 10
    later.start_time_unix_nano += 5
    later.as_int = 0
    assert not failed(stream.examined())


def test_an_exponential_histogram_is_a_histogram(good: Stream) -> None:
    stream = good.copy()
    metric = stream.metric("messaging_fetch_batch_size")
    points = metric.histogram.data_points
    metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.exponential_histogram.data_points.add(
        count=points[0].count, sum=points[0].sum, time_unix_nano=points[0].time_unix_nano
    )
    assert not failed(stream.examined())


def test_many_differences_of_a_kind_are_a_single_line_with_examples(good: Stream) -> None:
    stream = good.copy()
    points = stream.metric("messages_sent_total").sum.data_points
    for number in range(8):
        point = points.add()
        point.CopyFrom(points[0])
        point.attributes[0].value.string_value = f"x{number}"
    detail = failures(stream.examined())["undeclared_value messages_sent_total{status}"]
    assert detail.startswith("is 'x0', 'x1', 'x2', 'x3', 'x4', ..., which is not declared")
    assert detail.endswith("(8 times)")


# --- Selection ----------------------------------------------------------------------------------------


def test_required_metrics_depend_on_the_release(good: Stream) -> None:
    stream = good.copy()
    stream.scope().metrics.remove(stream.metric("http_requests_total"))
    assert not failed(stream.examined(require="implemented"))
    assert list(failures(stream.examined(require="all"))) == ["missing_metric http_requests_total"]
    del stream.scope().metrics[:]
    assert len(failures(stream.examined(require="implemented"))) == 15
    diagnostics = stream.examined(require="none")
    assert not failed(diagnostics)
    assert diagnostics[0].severity == "skip"


def test_another_service_is_ignored(good: Stream) -> None:
    stream = good.copy()
    invent(stream)
    other = stream.copy()
    for request in other.requests:
        if isinstance(request, ExportMetricsServiceRequest):
            del request.resource_metrics[0].resource.attributes[:]
    assert list(failures(stream.examined(service=SERVICE))) == ["unknown_metric cpu"]
    both = Stream([*good.requests, *other.requests])
    assert list(failures(both.examined())) == ["unknown_metric cpu"]
    assert not failed(both.examined(service=SERVICE))


@pytest.mark.parametrize("pattern", ["unknown_metric", "cpu", "c?u", "unknown_metric:c*"])
def test_an_ignored_difference_is_a_skipped_finding(good: Stream, pattern: str) -> None:
    stream = good.copy()
    invent(stream)
    diagnostics = stream.examined(ignore=(pattern,))
    (ignored,) = [diagnostic for diagnostic in diagnostics if diagnostic.subject == "cpu"]
    assert not failed(diagnostics)
    assert (ignored.severity, ignored.message) == ("skip", "a gauge that is not in the catalogue; ignored")


def test_a_pattern_that_matches_nothing_is_a_warning(good: Stream) -> None:
    last = good.examined(ignore=("process.*",))[-1]
    assert (last.rule, last.severity, last.subject) == ("ignore", "warning", "process.*")


def test_no_request_is_a_failure() -> None:
    (diagnostic,) = Stream([]).examined()
    assert (diagnostic.severity, diagnostic.message) == ("error", "no request was received")


# --- Command ------------------------------------------------------------------------------------------


@pytest.fixture
def conform(poller_process: Start) -> Callable[..., tuple[Process, dict[Transport, str]]]:
    """Start `poller conform` on free ports; return the process and its endpoints."""

    def start(*arguments: str) -> tuple[Process, dict[Transport, str]]:
        process = poller_process("conform", "--grpc-port", "0", "--http-port", "0", *arguments)
        line = process.wait_for_line(r"listening: grpc (\S+), http (\S+), ", stream="stderr")
        return process, {"grpc": line.group(1), "http": line.group(2)}

    return start


Conform = Callable[..., tuple[Process, dict[Transport, str]]]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_conforming_server_ends_it_with_0(conform: Conform, protocol: Transport) -> None:
    process, endpoints = conform("--requests", str(REQUESTS), "--require", "all")
    send_everything(endpoints[protocol], protocol)
    assert process.wait() == 0, process
    assert process.stdout.splitlines()[-1] == "0 failed, 0 warnings, 3 ok, 0 skipped"
    assert "until request 4" in process.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_difference_ends_it_with_1_and_the_reason(conform: Conform, protocol: Transport) -> None:
    process, endpoints = conform("--requests", str(REQUESTS), "--format", "json")
    send_everything(endpoints[protocol], protocol, log="10.1.2.3 came")
    assert process.wait() == 1, process
    result = json.loads(process.stdout)
    (wrong,) = [item for item in result["checks"] if item["state"] == "fail" and "subject" in item]
    assert result["ok"] is False
    assert (wrong["check"], wrong["subject"]) == ("personal_text", "log body of server.messages")
    assert wrong["facts"] == {"count": 1}


def test_the_servers_names_are_not_the_documents(conform: Conform) -> None:
    process, endpoints = conform("--requests", str(REQUESTS), "--generation", "v0.9.4")
    send_everything(endpoints["grpc"], "grpc")
    assert process.wait() == 1
    assert "missing_metric" in process.stdout
    assert "unknown_metric" in process.stdout
    assert "it is in generation document -> use --generation document" in process.stdout


def test_a_signal_ends_it_with_a_report(conform: Conform) -> None:
    process, endpoints = conform("--namespace", "acme")
    send_everything(endpoints["http"], "http")
    process.send(signal.SIGINT)
    assert process.wait() == 1
    assert "until Ctrl-C" in process.stderr
    assert "acme_messages_sent_total" in process.stdout


def test_a_duration_ends_it(conform: Conform) -> None:
    process, _ = conform("--for", "1s")
    assert process.wait() == 1
    assert "no request was received" in process.stdout
    assert "for 1s" in process.stderr


def test_the_command_of_the_readme_works(
    good: Stream, receiver: Receiver, start_process: Start, tmp_path: Path
) -> None:
    (commands,) = [block.text for block in all_blocks("run") if block.argument == "conform"]
    receiver.stop()
    assert "--for 30s" in commands
    ports = f"--grpc-port {receiver.grpc_port} --http-port {receiver.http_port}"
    commands = commands.replace("--for 30s", f"--requests {REQUESTS} {ports}")
    commands = commands.replace("obscura-server", SERVICE)
    (tmp_path / "recorded.json").write_text("".join(recorded(good)), encoding="utf-8")
    process = start_process(["bash", "-c", f"set -e\n{script(commands)}"], cwd=tmp_path)
    process.wait_for_line("listening")
    send_everything(receiver.http_endpoint, "http")
    assert process.wait() == 0, process
    assert process.stdout.count("0 failed, 0 warnings, 3 ok, 0 skipped") == 2


def poller(*arguments: str, text_input: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poller", "conform", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, input=text_input)


def recorded(stream: Stream) -> Iterator[str]:
    """Lines of the Collector's file exporter, with hexadecimal ids."""

    def hexadecimal(value: Any) -> Any:
        if isinstance(value, list):
            return [hexadecimal(item) for item in value]
        if isinstance(value, dict):
            return {
                key: base64.b64decode(item).hex() if key.endswith(("traceId", "panId")) else hexadecimal(item)
                for key, item in value.items()
            }
        return value

    for request in stream.requests:
        yield json.dumps(hexadecimal(MessageToDict(request))) + "\n"


def test_a_recorded_file_is_read(good: Stream, tmp_path: Path) -> None:
    stream = good.copy()
    remove_the_trace_id(stream)
    (tmp_path / "good.json").write_text("\n".join(recorded(good)) + '{"resourceMe', encoding="utf-8")
    (tmp_path / "bad.json").write_text("".join(recorded(stream)), encoding="utf-8")

    done = poller(str(tmp_path / "good.json"), "--require", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    done = poller(str(tmp_path / "good.json"), str(tmp_path / "bad.json"))
    assert done.returncode == 1
    assert "log records of server.messages  have no trace_id and span_id" in done.stdout
    done = poller("-", text_input="".join(recorded(good)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no request was received"),
        (
            b"{}\n",
            "file:1: is not OTLP/JSON: it has none of the keys resourceMetrics, resourceSpans, resourceLogs",
        ),
        (b'{"resourceMetrics": []}\nnot json\n', "file:2: is not OTLP/JSON: Expecting value"),
        (b'{"resourceSpans": 7}\n', "file:1: is not OTLP/JSON"),
        (b"[" * 200_000 + b"\n", "file:1: is not OTLP/JSON"),
        (b'{"resourceSpans": ' + b"[" * 200_000 + b"\n", "file:1: is not OTLP/JSON"),
        (b" " * (64 << 20) + b"\n", "file:1: is a line of 64 Mi characters or more"),
        (
            b"\x00\x00\x01\xff\xfe",
            "file: is not a text file; write it with the file exporter's `format: json`",
        ),
    ],
)
def test_an_invalid_file_is_reported(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    done = poller(str(file))
    assert done.returncode == (2 if content else 1)
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_ends_with_2(tmp_path: Path, receiver: Receiver) -> None:
    for arguments, expected in (
        ([str(tmp_path / "none")], "No such file"),
        (["--for", "soon"], "--for: 'soon' is not a duration"),
        (["--for", "1s", "x"], "cannot combine files with"),
        (["--generation", "v1"], "v1"),
        (["--grpc-port", str(receiver.grpc_port)], "set --grpc-port and --http-port"),
    ):
        done = poller(*arguments)
        assert done.returncode == 2, arguments
        assert expected in done.stderr
        assert "Traceback" not in done.stderr

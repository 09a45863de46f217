"""`poller conform` passes a server that keeps to the catalogue, and names each way in which one does not."""

from __future__ import annotations

import base64
import json
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
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from poller.checkup.finding import Finding, healthy
from poller.conform.examination import Examination, Require
from poller.events.catalog import GenerationName, declared, generation
from poller.receiver.receiver import Receiver
from poller.receiver.signals import Request, Signal
from poller.receiver.taking import Protocol
from tests.bed.process import ROOT, Process
from tests.bed.told import REQUESTS, SERVICE, tell
from tests.test_readme import _on_path as on_path
from tests.test_readme import blocks

Start = Callable[..., Process]


@dataclass
class Stream:
    """What a good server sent, to be made worse."""

    requests: list[Request]

    def copy(self) -> Stream:
        copies: list[Request] = []
        for request in self.requests:
            copy = type(request)()
            copy.CopyFrom(request)  # type: ignore[arg-type]  # of the very same type
            copies.append(copy)
        return Stream(copies)

    def scope(self) -> Any:
        """The metrics of the one scope."""
        (request,) = [one for one in self.requests if isinstance(one, ExportMetricsServiceRequest)]
        return request.resource_metrics[0].scope_metrics[0]

    def metric(self, name: str) -> Metric:
        found: Metric = next(metric for metric in self.scope().metrics if metric.name == name)
        return found

    def span(self, name: str) -> Span:
        return next(
            span
            for request in self.requests
            if isinstance(request, ExportTraceServiceRequest)
            for span in request.resource_spans[0].scope_spans[0].spans
            if span.name == name
        )

    def record(self) -> LogRecord:
        (request,) = [one for one in self.requests if isinstance(one, ExportLogsServiceRequest)]
        return request.resource_logs[0].scope_logs[0].log_records[0]

    def examined(
        self,
        of: GenerationName = "document",
        require: Require = "all",
        service: str | None = None,
        ignore: tuple[str, ...] = (),
    ) -> list[Finding]:
        metrics = tuple(declared(of).values())
        examination = Examination(metrics, units=generation(of).units, require=require, service=service)
        for request in self.requests:
            examination.take(request)
        return examination.findings(ignore)


def sent(generation: GenerationName, protocol: Protocol) -> Stream:
    with Receiver() as receiver:
        tell(receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint, protocol, generation)
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


def failures(findings: list[Finding]) -> dict[str, str]:
    """What failed, but for the summaries that follow from it."""
    return {
        f"{finding.check} {finding.subject}": finding.detail
        for finding in findings
        if finding.state == "fail" and finding.subject
    }


# --- a server that keeps to it ------------------------------------------------------------------------


def test_a_server_that_keeps_to_the_catalogue_passes(good: Stream) -> None:
    findings = good.examined()
    assert healthy(findings)
    assert [(finding.check, finding.state, finding.detail) for finding in findings] == [
        ("metrics", "ok", findings[0].detail),
        ("spans", "ok", "2 looked at, no difference"),
        ("log_records", "ok", "1 looked at, no difference"),
    ]
    assert findings[0].detail.startswith("21 of 21 seen in ")


def test_so_does_one_with_the_servers_names(of_server: Stream) -> None:
    assert healthy(of_server.examined("v0.9.4"))


def test_the_server_of_that_release_tells_no_units_and_passes(of_server: Stream) -> None:
    stream = of_server.copy()
    for metric in stream.scope().metrics:
        metric.unit = ""
    assert healthy(stream.examined("v0.9.4"))
    stream.metric("obscura_logins_total").unit = "{message}"
    assert list(failures(stream.examined("v0.9.4"))) == ["wrong_unit obscura_logins_total"]


def test_trace_context_as_attributes_is_one_too(good: Stream) -> None:
    stream = good.copy()
    record = stream.record()
    record.attributes.extend([pair("trace_id", record.trace_id.hex()), pair("span_id", record.span_id.hex())])
    record.trace_id, record.span_id = b"", b""
    assert healthy(stream.examined())


# --- and one that does not ----------------------------------------------------------------------------


def rename(stream: Stream) -> None:
    stream.metric("messages_sent_total").name = "message_sent_total"


def invent(stream: Stream) -> None:
    stream.scope().metrics.add(name="cpu", unit="1").gauge.data_points.add(as_double=0.5)


def leave_out(stream: Stream) -> None:
    metrics = stream.scope().metrics
    metrics.remove(stream.metric("keys_takeovers_total"))


def make_a_gauge(stream: Stream) -> None:
    metric = stream.metric("users_registered_total")
    metric.gauge.data_points.extend(metric.sum.data_points)


def make_a_counter(stream: Stream) -> None:
    stream.metric("websocket_active_connections").sum.is_monotonic = True


def make_it_fall_by_type(stream: Stream) -> None:
    stream.metric("users_registered_total").sum.is_monotonic = False


def make_it_fall(stream: Stream) -> None:
    points = stream.metric("users_registered_total").sum.data_points
    later = points.add()
    later.CopyFrom(points[0])
    later.time_unix_nano += 1
    later.as_int -= 1


def make_a_histogram_fall(stream: Stream) -> None:
    points = stream.metric("attachments_upload_size_bytes").histogram.data_points
    later = points.add()
    later.CopyFrom(points[0])
    later.time_unix_nano += 1
    later.count = 0


def change_the_unit(stream: Stream) -> None:
    stream.metric("http_request_duration_seconds").unit = "ms"


def forget_the_unit(stream: Stream) -> None:
    stream.metric("attachments_upload_size_bytes").unit = ""


def give_a_unit(stream: Stream) -> None:
    stream.metric("health_status").unit = "1"


def add_an_attribute(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].attributes.append(pair("user", "ada"))


def drop_an_attribute(stream: Stream) -> None:
    del stream.metric("rate_limit_decisions_total").sum.data_points[0].attributes[:]


def misspell_a_value(stream: Stream) -> None:
    stream.metric("messages_sent_total").sum.data_points[0].attributes[0].value.string_value = "sucess"


def tell_an_address_as_value(stream: Stream) -> None:
    stream.metric("health_status").gauge.data_points[0].attributes[0].value.string_value = "203.0.113.7"


def route(stream: Stream) -> AnyValue:
    (attribute,) = stream.metric("http_request_duration_seconds").histogram.data_points[0].attributes
    return attribute.value


def tell_the_path(stream: Stream) -> None:
    route(stream).string_value = "/v1/devices/0190163d-8694-739b-aea5-966c26f8ad91/keys"


def tell_the_query(stream: Stream) -> None:
    route(stream).string_value = "/v1/gateway?ticket=1"


def server_span(name: str, value: str) -> Callable[[Stream], None]:
    return lambda stream: stream.span("POST /v1/messages").attributes.append(pair(name, value))


def name_a_span(stream: Stream) -> None:
    stream.span("POST /v1/messages").name = "POST /v1/messages?to=ada"


def fail_a_span(stream: Stream) -> None:
    stream.span("INSERT messages").status.message = "no user ada@example.org"


def tell_in_an_event(stream: Stream) -> None:
    stream.span("INSERT messages").events[0].attributes.append(
        pair("exception.message", "bearer abcdefgh12345 is refused")
    )


def tell_in_a_link(stream: Stream) -> None:
    stream.span("INSERT messages").links.add().attributes.append(pair("client.address", "203.0.113.7"))


def make_the_peer_a_client(stream: Stream) -> None:
    stream.span("INSERT messages").kind = Span.SPAN_KIND_SERVER


def say_in_the_log(stream: Stream) -> None:
    stream.record().body.string_value = '203.0.113.7:5000 - "GET /" 200'


def nest_in_the_log(stream: Stream) -> None:
    stream.record().body.kvlist_value.CopyFrom(KeyValueList(values=[pair("authorization", "x")]))


def attach_to_the_log(stream: Stream) -> None:
    stream.record().attributes.append(pair("remote_addr", "203.0.113.7"))


def lose_the_trace(stream: Stream) -> None:
    stream.record().trace_id = b""


def tell_zeros(stream: Stream) -> None:
    stream.record().trace_id = bytes(16)


MUTATIONS: list[tuple[Callable[[Stream], None], dict[str, str]]] = [
    (
        rename,
        {
            "missing_metric messages_sent_total": "was not sent",
            "unknown_metric message_sent_total": "not in the catalogue; did you mean 'messages_sent_total'?",
        },
    ),
    (invent, {"unknown_metric cpu": "a gauge that is not in the catalogue"}),
    (leave_out, {"missing_metric keys_takeovers_total": "was not sent; the catalogue has it as a counter"}),
    (make_a_gauge, {"wrong_type users_registered_total": "is a gauge; the catalogue has a counter"}),
    (
        make_a_counter,
        {"wrong_type websocket_active_connections": "is a monotonic sum; the catalogue has an up-down"},
    ),
    (make_it_fall_by_type, {"not_monotonic users_registered_total": "is a non-monotonic sum"}),
    (make_it_fall, {"not_monotonic users_registered_total": "fell from 1 to 0 without a restart"}),
    (make_a_histogram_fall, {"not_monotonic attachments_upload_size_bytes": "fell from 1 to 0"}),
    (
        change_the_unit,
        {"wrong_unit http_request_duration_seconds": "has the unit 'ms'; the catalogue has 's'"},
    ),
    (forget_the_unit, {"wrong_unit attachments_upload_size_bytes": "has no unit; the catalogue has 'By'"}),
    (give_a_unit, {"wrong_unit health_status": "has the unit '1'; it should have none"}),
    (
        add_an_attribute,
        {"undeclared_attribute messages_sent_total{user}": "is not declared; declared are: status"},
    ),
    (drop_an_attribute, {"missing_attribute rate_limit_decisions_total{status}": "is missing"}),
    (
        misspell_a_value,
        {"undeclared_value messages_sent_total{status}": "is 'sucess', which is not declared; there are"},
    ),
    (
        tell_an_address_as_value,
        {"undeclared_value health_status{component}": "is (an IP address), which is not declared"},
    ),
    (
        tell_the_path,
        {"undeclared_value http_request_duration_seconds{route}": "a path with an id and no template"},
    ),
    (tell_the_query, {"personal_text http_request_duration_seconds{route}": "holds a query string"}),
    (
        server_span("client.address", "203.0.113.7"),
        {"personal_attribute client.address": "on span 'POST /v1/messages'"},
    ),
    (
        server_span("user_agent.original", "curl/8"),
        {"personal_attribute user_agent.original": "tells who or where a client is"},
    ),
    (
        server_span("http.request.header.cookie", "a=1"),
        {"personal_attribute http.request.header.cookie": "tells who or where a client is"},
    ),
    (server_span("url.query", "a=1"), {"personal_attribute url.query": "tells who or where a client is"}),
    (server_span("http.target", "/a?b=1"), {"personal_text http.target": "holds a query string"}),
    (server_span("note", "to ada@example.org"), {"personal_text note": "holds an e-mail address"}),
    (server_span("note", "peer 10.1.2.3"), {"personal_text note": "holds an IP address"}),
    (name_a_span, {"personal_text span name": "holds a query string"}),
    (fail_a_span, {"personal_text span status": "holds an e-mail address, on span 'INSERT messages'"}),
    (
        tell_in_an_event,
        {"personal_text exception.message": "holds a token, on span 'INSERT messages', event 'stored'"},
    ),
    (tell_in_a_link, {"personal_attribute client.address": "on span 'INSERT messages', a link"}),
    (make_the_peer_a_client, {"personal_attribute network.peer.address": "on span 'INSERT messages'"}),
    (say_in_the_log, {"personal_text log body of server.messages": "holds an IP address"}),
    (nest_in_the_log, {"personal_text log body of server.messages": "holds a secret or personal field"}),
    (attach_to_the_log, {"personal_attribute remote_addr": "on log record of server.messages"}),
    (lose_the_trace, {"no_trace_context log records of server.messages": "have no trace_id and span_id"}),
    (tell_zeros, {"no_trace_context log records of server.messages": "have no trace_id and span_id"}),
]


@pytest.mark.parametrize(
    ("mutate", "expected"), MUTATIONS, ids=[" ".join(expected) for _, expected in MUTATIONS]
)
def test_each_mutation_is_named_and_nothing_else_is(
    good: Stream, mutate: Callable[[Stream], None], expected: dict[str, str]
) -> None:
    stream = good.copy()
    mutate(stream)
    findings = stream.examined()
    failed = failures(findings)

    assert not healthy(findings)
    assert failed.keys() == expected.keys()
    for name, words in expected.items():
        assert words in failed[name]
    told = "\n".join(finding.detail + str(finding.facts) for finding in findings)
    for secret in ("203.0.113.7", "ada@example.org", "abcdefgh12345"):
        assert secret not in told


def test_boundaries_that_do_not_fit_are_a_warning(good: Stream) -> None:
    stream = good.copy()
    for point in stream.metric("http_request_duration_seconds").histogram.data_points:
        point.explicit_bounds[:] = [0, 5, 10, 25, 50, 75, 100, 250, 500, 1000]
        point.bucket_counts[:] = [point.count, *[0] * 10]
    findings = stream.examined()
    (warning,) = [finding for finding in findings if finding.state == "warn"]
    assert healthy(findings)
    assert (warning.check, warning.subject) == ("boundaries", "http_request_duration_seconds")
    assert (
        "has the boundaries 0, 5, 10 ... 1000; better are 0.005, 0.01, 0.025 ... 120 (2 times)"
        in warning.detail
    )


def test_delta_is_a_warning(good: Stream) -> None:
    stream = good.copy()
    stream.metric("messages_sent_total").sum.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    findings = stream.examined()
    (warning,) = [finding for finding in findings if finding.state == "warn"]
    assert healthy(findings)
    assert (warning.check, warning.subject) == ("temporality", "messages_sent_total")


def test_a_counter_may_begin_anew_after_a_restart(good: Stream) -> None:
    stream = good.copy()
    points = stream.metric("messages_sent_total").sum.data_points
    later = points.add()
    later.CopyFrom(points[0])
    later.time_unix_nano += 10
    later.start_time_unix_nano += 5
    later.as_int = 0
    assert healthy(stream.examined())


def test_an_exponential_histogram_is_a_histogram(good: Stream) -> None:
    stream = good.copy()
    metric = stream.metric("messaging_fetch_batch_size")
    points = metric.histogram.data_points
    metric.exponential_histogram.data_points.add(count=points[0].count, sum=points[0].sum)
    assert healthy(stream.examined())


def test_many_differences_of_a_kind_are_one_line_with_examples(good: Stream) -> None:
    stream = good.copy()
    points = stream.metric("messages_sent_total").sum.data_points
    for number in range(8):
        point = points.add()
        point.CopyFrom(points[0])
        point.attributes[0].value.string_value = f"x{number}"
    detail = failures(stream.examined())["undeclared_value messages_sent_total{status}"]
    assert detail.startswith("is 'x0', 'x1', 'x2', 'x3', 'x4', ..., which is not declared")
    assert detail.endswith("(8 times)")


# --- what is looked at --------------------------------------------------------------------------------


def test_what_is_required_depends_on_what_the_server_has(good: Stream) -> None:
    stream = good.copy()
    stream.scope().metrics.remove(stream.metric("http_requests_total"))
    assert healthy(stream.examined(require="implemented"))
    assert list(failures(stream.examined(require="all"))) == ["missing_metric http_requests_total"]
    del stream.scope().metrics[:]
    assert len(failures(stream.examined(require="implemented"))) == 15
    findings = stream.examined(require="none")
    assert healthy(findings)
    assert findings[0].state == "skip"


def test_another_service_is_passed_over(good: Stream) -> None:
    stream = good.copy()
    invent(stream)
    other = stream.copy()
    for request in other.requests:
        if isinstance(request, ExportMetricsServiceRequest):
            del request.resource_metrics[0].resource.attributes[:]
    assert list(failures(stream.examined(service=SERVICE))) == ["unknown_metric cpu"]
    both = Stream([*good.requests, *other.requests])
    assert list(failures(both.examined())) == ["unknown_metric cpu"]
    assert healthy(both.examined(service=SERVICE))


@pytest.mark.parametrize("pattern", ["unknown_metric", "cpu", "c?u", "unknown_metric:c*"])
def test_what_is_ignored_is_said_to_be(good: Stream, pattern: str) -> None:
    stream = good.copy()
    invent(stream)
    findings = stream.examined(ignore=(pattern,))
    (ignored,) = [finding for finding in findings if finding.subject == "cpu"]
    assert healthy(findings)
    assert (ignored.state, ignored.detail) == ("skip", "a gauge that is not in the catalogue; ignored")


def test_a_pattern_that_matches_nothing_is_a_warning(good: Stream) -> None:
    last = good.examined(ignore=("process.*",))[-1]
    assert (last.check, last.state, last.subject) == ("ignore", "warn", "process.*")


def test_nothing_received_is_a_failure() -> None:
    (finding,) = Stream([]).examined()
    assert (finding.state, finding.detail) == ("fail", "nothing was received")


# --- as a command -------------------------------------------------------------------------------------


@pytest.fixture
def conform(poller_process: Start) -> Callable[..., tuple[Process, dict[Protocol, str]]]:
    """Start `poller conform` on free ports; returns it and where it listens."""

    def start(*arguments: str) -> tuple[Process, dict[Protocol, str]]:
        process = poller_process("conform", "--grpc-port", "0", "--http-port", "0", *arguments)
        line = process.wait_for_line(r"listening: grpc (\S+), http (\S+), ", stream="stderr")
        return process, {"grpc": line.group(1), "http": line.group(2)}

    return start


Conform = Callable[..., tuple[Process, dict[Protocol, str]]]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_good_server_ends_it_with_0(conform: Conform, protocol: Protocol) -> None:
    process, endpoints = conform("--requests", str(REQUESTS), "--require", "all")
    tell(endpoints[protocol], protocol)
    assert process.wait() == 0, process
    assert process.stdout.splitlines()[-1] == "0 failed, 0 warnings, 3 ok, 0 skipped"
    assert "until request 4" in process.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_bad_one_ends_it_with_1_and_the_reason(conform: Conform, protocol: Protocol) -> None:
    process, endpoints = conform("--requests", str(REQUESTS), "--format", "json")
    tell(endpoints[protocol], protocol, log="10.1.2.3 came")
    assert process.wait() == 1, process
    told = json.loads(process.stdout)
    (wrong,) = [one for one in told["checks"] if one["state"] == "fail" and "subject" in one]
    assert told["ok"] is False
    assert (wrong["check"], wrong["subject"]) == ("personal_text", "log body of server.messages")
    assert wrong["facts"] == {"count": 1}


def test_the_servers_names_are_not_the_documents(conform: Conform) -> None:
    process, endpoints = conform("--requests", str(REQUESTS), "--generation", "v0.9.4")
    tell(endpoints["grpc"], "grpc")
    assert process.wait() == 1
    assert "missing_metric" in process.stdout
    assert "unknown_metric" in process.stdout
    assert "in its generation document it is -> say --generation document" in process.stdout


def test_a_signal_ends_it_with_a_report(conform: Conform) -> None:
    process, endpoints = conform("--namespace", "acme")
    tell(endpoints["http"], "http")
    process.send(signal.SIGINT)
    assert process.wait() == 1
    assert "until Ctrl-C" in process.stderr
    assert "acme_messages_sent_total" in process.stdout


def test_a_time_ends_it(conform: Conform) -> None:
    process, _ = conform("--for", "1s")
    assert process.wait() == 1
    assert "nothing was received" in process.stdout
    assert "for 1s" in process.stderr


def test_it_works_as_the_readme_says(
    good: Stream, receiver: Receiver, start_process: Start, tmp_path: Path
) -> None:
    (commands,) = [text for name, text in blocks("run") if name == "conform"]
    receiver.stop()
    assert "--for 30s" in commands
    ports = f"--grpc-port {receiver.grpc_port} --http-port {receiver.http_port}"
    commands = commands.replace("--for 30s", f"--requests {REQUESTS} {ports}")
    commands = commands.replace("obscura-server", SERVICE)
    (tmp_path / "recorded.json").write_text("".join(recorded(good)), encoding="utf-8")
    process = start_process(["bash", "-c", f"set -e\n{on_path(commands)}"], cwd=tmp_path)
    process.wait_for_line("listening")
    tell(receiver.http_endpoint, "http")
    assert process.wait() == 0, process
    assert process.stdout.count("0 failed, 0 warnings, 3 ok, 0 skipped") == 2


def poller(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poller", "conform", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, input=given)


def recorded(stream: Stream) -> Iterator[str]:
    """Lines as the Collector's file exporter writes them: ids in hexadecimal."""

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
    lose_the_trace(stream)
    (tmp_path / "good.json").write_text("\n".join(recorded(good)) + '{"resourceMe', encoding="utf-8")
    (tmp_path / "bad.json").write_text("".join(recorded(stream)), encoding="utf-8")

    done = poller(str(tmp_path / "good.json"), "--require", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    done = poller(str(tmp_path / "good.json"), str(tmp_path / "bad.json"))
    assert done.returncode == 1
    assert "log records of server.messages  have no trace_id and span_id" in done.stdout
    done = poller("-", given="".join(recorded(good)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "nothing was received"),
        (b"{}\n", "file:1: is no OTLP/JSON: it has none of resourceMetrics, resourceSpans, resourceLogs"),
        (b'{"resourceMetrics": []}\nnot json\n', "file:2: is no OTLP/JSON: Expecting value"),
        (b'{"resourceSpans": 7}\n', "file:1: is no OTLP/JSON"),
        (b"\x00\x00\x01\xff\xfe", "file: is no text; write it with the file exporter's `format: json`"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    done = poller(str(file))
    assert done.returncode == (2 if content else 1)
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_ends_with_2(tmp_path: Path, receiver: Receiver) -> None:
    for arguments, said in (
        ([str(tmp_path / "none")], "No such file"),
        (["--for", "soon"], "--for: 'soon' is not a duration"),
        (["--for", "1s", "x"], "either reads files or listens"),
        (["--generation", "v1"], "v1"),
        (["--grpc-port", str(receiver.grpc_port)], "set --grpc-port and --http-port"),
    ):
        done = poller(*arguments)
        assert done.returncode == 2, arguments
        assert said in done.stderr
        assert "Traceback" not in done.stderr

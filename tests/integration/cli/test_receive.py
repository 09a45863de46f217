"""`poller receive` prints the OTLP that it accepts."""

from __future__ import annotations

import contextlib
import signal
import sys
import urllib.request
from collections.abc import Callable

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from poller.receiver.listener import Transport
from poller.receiver.ports import free_ports
from poller.receiver.receiver import Receiver
from tests.bed.otlp_server import send_everything
from tests.bed.process import Process, eventually

Receive = Callable[..., tuple[Process, dict[Transport, str]]]


@pytest.fixture
def receive(poller_process: Callable[..., Process]) -> Receive:
    """Start `poller receive` on free ports; return the process and its endpoints."""

    def start(*arguments: str) -> tuple[Process, dict[Transport, str]]:
        process = poller_process("receive", "--grpc-port", "0", "--http-port", "0", *arguments)
        line = process.wait_for_line(r"receiving: grpc (\S+), http (\S+), ", stream="stderr")
        return process, {"grpc": line.group(1), "http": line.group(2)}

    return start


def texts(process: Process) -> list[str]:
    """Return the printed lines without their times."""
    return [line.partition(" ")[2] for line in process.stdout.splitlines()]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_each_data_point_span_and_log_record_is_a_line(receive: Receive, protocol: Transport) -> None:
    process, endpoints = receive()
    send_everything(endpoints[protocol], protocol, log="a log text")
    process.send(signal.SIGINT)

    assert process.wait() == 0
    kinds = {line.partition(" ")[0] for line in texts(process)}
    assert kinds == {"metric", "span", "log"}
    (span,) = [line for line in texts(process) if line.startswith("span POST /v1/messages{")]
    assert ", http.route=/v1/messages" in span
    assert " ms, trace " in span
    assert [line for line in texts(process) if line.startswith("log ") and "a log text" in line]


def test_only_the_named_metrics_are_printed_with_attributes_value_and_unit(receive: Receive) -> None:
    process, endpoints = receive("orders*")
    exporter = OTLPMetricExporter(endpoint=endpoints["grpc"], insecure=True)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("shop")
    meter.create_counter("orders", unit="{order}").add(3, {"state": "new"})
    meter.create_histogram("orders.duration", unit="s").record(0.5)
    meter.create_gauge("stock").set(7)
    assert provider.force_flush()
    process.send(signal.SIGTERM)

    assert process.wait() == 0
    assert texts(process) == [
        "metric orders{state=new} 3 {order}",
        "metric orders.duration count 1, sum 0.5 s",
    ]


def test_each_line_has_its_instance_as_soon_as_there_are_several(receive: Receive) -> None:
    process, endpoints = receive()

    def send(*instances: str) -> None:
        """Send one request with a value of each instance; empty: without a name."""
        request = ExportMetricsServiceRequest()
        for instance in instances:
            of_target = request.resource_metrics.add()
            if instance:
                of_target.resource.attributes.add(key="service.instance.id").value.string_value = instance
            metric = of_target.scope_metrics.add().metrics.add(name="users", unit="{user}")
            metric.gauge.data_points.add(as_int=3)
        urllib.request.urlopen(
            urllib.request.Request(
                f"{endpoints['http']}/v1/metrics",
                request.SerializeToString(),
                {"Content-Type": "application/x-protobuf"},
            )
        ).close()

    send("eu-1")
    send("eu-1")
    send("eu-1", "us\n1", "")
    send("eu-1")
    process.send(signal.SIGTERM)

    assert process.wait() == 0
    assert texts(process) == [
        "metric users 3 {user}",
        "metric users 3 {user}",
        "eu-1: metric users 3 {user}",
        r"us\n1: metric users 3 {user}",
        "-: metric users 3 {user}",
        "eu-1: metric users 3 {user}",
    ]


def test_text_of_a_sender_cannot_control_the_terminal_and_a_line_has_a_bound(receive: Receive) -> None:
    process, endpoints = receive()
    exporter = OTLPMetricExporter(endpoint=endpoints["grpc"], insecure=True)
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)], shutdown_on_exit=False
    )
    provider.get_meter("m").create_gauge("g").set(1, {"a": "\x1b[2J\nforged", "z": "x" * 100_000})
    assert provider.force_flush()
    process.send(signal.SIGTERM)

    assert process.wait() == 0
    (line,) = texts(process)
    assert line.startswith(r"metric g{a=\u001b[2J\nforged, z=xxx")
    assert len(line) <= 2_000


def test_it_ends_when_the_reader_of_its_output_ends(start_process: Callable[..., Process]) -> None:
    grpc, http = free_ports(2)
    command = f"{sys.executable} -m poller receive --grpc-port {grpc} --http-port {http} | head -n 1"
    process = start_process(["bash", "-c", command])
    process.wait_for_line("receiving: grpc", stream="stderr")

    def send() -> bool:
        with contextlib.suppress(Exception):  # the receiver may end before it answers
            send_everything(f"http://127.0.0.1:{grpc}", "grpc")
        return not process.running

    assert eventually(send, 120)
    assert len(process.stdout.splitlines()) == 1
    assert "Traceback" not in process.stderr


def test_it_ends_with_1_if_it_receives_nothing(receive: Receive) -> None:
    process, _ = receive("--for", "100ms")
    assert process.wait() == 1
    assert process.stdout == ""


def test_a_port_in_use_is_an_error_with_the_option_to_change(
    poller_process: Callable[..., Process], receiver: Receiver
) -> None:
    (free,) = free_ports(1)
    process = poller_process("receive", "--grpc-port", str(receiver.grpc_port), "--http-port", str(free))
    assert process.wait() == 2
    assert process.stderr == (
        f"poller receive: cannot listen on 127.0.0.1:{receiver.grpc_port}: the port is in use, or the "
        "address is not one of this host; set --grpc-port and --http-port; 0 chooses a free port\n"
    )

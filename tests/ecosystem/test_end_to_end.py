"""Standby, daemon, a real Collector, Prometheus and VictoriaMetrics: values and labels as documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.receiver.ports import free_ports
from tests.acceptance.demo.test_messaging_server import start_server
from tests.bed.messaging import MessagingServer
from tests.bed.otlp import Certificates
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.ecosystem.backends import (
    DOCUMENTED_COLLECTOR,
    IDENTITY,
    PATIENCE,
    SHIPPED,
    Backend,
    Collector,
    Prometheus,
    VictoriaMetrics,
    environment,
)
from tests.ecosystem.builds import need

Start = Callable[..., Process]
StartCollector = Callable[..., Collector]


@pytest.mark.parametrize(
    ("protocol", "encrypted", "compression"),
    [
        ("grpc", False, "none"),
        ("grpc", True, "gzip"),
        ("http/protobuf", False, "gzip"),
        ("http/protobuf", True, "none"),
    ],
)
def test_the_shipped_gauges_arrive_through_a_collector_as_documented(
    server: MessagingServer,
    poller_process: Start,
    prometheus: Prometheus,
    victoriametrics: VictoriaMetrics,
    start_collector: StartCollector,
    certificates: Certificates,
    tmp_path: Path,
    protocol: str,
    encrypted: bool,
    compression: str,
) -> None:
    tls = {"cert_file": str(certificates.server), "key_file": str(certificates.server_key)}
    collector = start_collector(
        {
            "otlp_http/prometheus": {"endpoint": prometheus.otlp},
            "otlp_http/victoriametrics": {"endpoint": victoriametrics.otlp},
            "debug": {"verbosity": "detailed"},
        },
        tls=tls if encrypted else None,
        metrics_only=("otlp_http/prometheus", "otlp_http/victoriametrics"),
    )
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    poller_process(
        "run",
        env=environment(
            server,
            endpoint,
            tmp_path,
            POLLER_OTLP_PROTOCOL=protocol,
            POLLER_OTLP_LOGS="true",
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificates.ca) if encrypted else "",
            OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        ),
    )

    for backend in (prometheus, victoriametrics):
        for metric, value in SHIPPED.items():
            # No other labels: in Prometheus, the other attributes of the resource are in target_info.
            assert backend.wait_for_series(metric) == [(IDENTITY, value)]
        polls = backend.wait_for_series('poller_polls_total{poller_state="ok"}')
        assert {labels["poller_query_name"] for labels, _ in polls} == {
            "users", "pending_messages", "attachments", "attachments_bytes",
        }  # fmt: skip
    # The output of the debug exporter: a span, and a log record.
    collector.process.wait_for_line(r"^ +Name +: users$")
    collector.process.wait_for_line(r"Body: Str\(polling the standby")
    ((labels, _),) = prometheus.wait_for_series("target_info")
    assert IDENTITY.items() <= labels.items()


def test_remote_write_by_a_collector_gives_the_same_series(
    server: MessagingServer,
    poller_process: Start,
    prometheus: Prometheus,
    victoriametrics: VictoriaMetrics,
    start_collector: StartCollector,
    tmp_path: Path,
) -> None:
    def to(backend: Backend) -> dict[str, object]:
        return {"endpoint": f"{backend.url}/api/v1/write", "disable_scope_info": True}  # as documented

    collector = start_collector(
        {
            "prometheusremotewrite/prometheus": to(prometheus),
            "prometheusremotewrite/victoriametrics": to(victoriametrics),
            "debug": {},
        },
        metrics_only=("prometheusremotewrite/prometheus", "prometheusremotewrite/victoriametrics"),
    )
    poller_process("run", env=environment(server, collector.grpc_endpoint, tmp_path))

    for backend in (prometheus, victoriametrics):
        for metric, value in SHIPPED.items():
            assert backend.wait_for_series(metric) == [(IDENTITY, value)]
        polls = backend.wait_for_series('poller_polls_total{poller_query_name="users"}')
        assert [labels for labels, _ in polls] == [
            {**IDENTITY, "poller_query_name": "users", "poller_state": "ok"}
        ]


def test_the_documented_collector_delivers_to_prometheus(
    server: MessagingServer,
    poller_process: Start,
    start_process: Start,
    prometheus: Prometheus,
    tmp_path: Path,
) -> None:
    """Only its addresses and its folder are replaced."""
    (port,) = free_ports(1)
    text = DOCUMENTED_COLLECTOR.replace("/var/lib/otelcol", str(tmp_path))
    text = text.replace("0.0.0.0:4317", f"127.0.0.1:{port}")
    text = text.replace("http://prometheus:9090/api/v1/otlp", prometheus.otlp)
    documented = yaml.safe_load(text)
    documented["service"]["telemetry"] = {"metrics": {"level": "none"}}  # which would listen on a fixed port
    file = tmp_path / "collector.yaml"
    file.write_text(yaml.safe_dump(documented), encoding="utf-8")
    collector = start_process([need("collector"), f"--config=file:{file}"])
    collector.wait_for_line("Everything is ready", PATIENCE)

    endpoint = f"http://127.0.0.1:{port}"
    poller_process("run", env=environment(server, endpoint, tmp_path, POLLER_TRACES="false"))

    for metric, value in SHIPPED.items():
        assert prometheus.wait_for_series(metric) == [(IDENTITY, value)]


def test_log_records_and_exemplars_belong_to_the_exported_spans(
    server: MessagingServer,
    poller_process: Start,
    start_collector: StartCollector,
    tmp_path: Path,
) -> None:
    """As the Collector's file exporter writes them."""
    file = tmp_path / "received.jsonl"
    collector = start_collector({"file": {"path": str(file), "flush_interval": "100ms"}})
    poller_process(
        "run",
        env=environment(
            server,
            collector.grpc_endpoint,
            tmp_path,
            POLLER_OTLP_LOGS="true",
            POLLER_QUERIES=str(failing(tmp_path)),
        ),
    )

    def received(kind: str, *path: str) -> list[dict[str, Any]]:
        """Return the items at the end of a path of lists in all requests of a kind."""
        complete, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
        items = [json.loads(line) for line in complete.splitlines()]
        for name in (kind, *path):
            items = [inner for item in items for inner in item.get(name, [])]
        return items

    def linked() -> set[str]:
        """Return the names of the failed spans with a log record of their own."""
        spans = {
            (span["traceId"], span["spanId"]): span["name"]
            for span in received("resourceSpans", "scopeSpans", "spans")
            if span.get("status", {}).get("code") == 2
        }
        records = received("resourceLogs", "scopeLogs", "logRecords")
        return {
            name
            for record in records
            if (name := spans.get((record.get("traceId", ""), record.get("spanId", ""))))
        }

    assert eventually(lambda: "missing" in linked(), PATIENCE)
    metrics = received("resourceMetrics", "scopeMetrics", "metrics")
    exemplars = [
        exemplar
        for metric in metrics
        if metric["name"] == "poller.poll.duration"
        for point in metric["histogram"]["dataPoints"]
        for exemplar in point.get("exemplars", [])
    ]
    traces = {span["traceId"] for span in received("resourceSpans", "scopeSpans", "spans")}
    assert {exemplar["traceId"] for exemplar in exemplars} & traces


def failing(folder: Path) -> Path:
    file = folder / "failing.yaml"
    metric = {"name": "rows", "unit": "{row}", "description": "Rows.", "value_column": "n"}
    query = {"name": "missing", "sql": "SELECT count(*) AS n FROM missing", "interval": "1s"}
    file.write_text(json.dumps({"queries": [{**query, "metrics": [metric]}]}), encoding="utf-8")
    return file


def test_the_events_of_a_server_arrive_under_the_documented_names(
    database: Database,
    start_process: Start,
    poller_process: Start,
    prometheus: Prometheus,
    victoriametrics: VictoriaMetrics,
    start_collector: StartCollector,
    tmp_path: Path,
) -> None:
    collector = start_collector(
        {
            "otlp_http/prometheus": {"endpoint": prometheus.otlp},
            "otlp_http/victoriametrics": {"endpoint": victoriametrics.otlp},
            "debug": {},
        },
        metrics_only=("otlp_http/prometheus", "otlp_http/victoriametrics"),
    )
    start_server(
        start_process, "poller.demo.messaging", database, collector.grpc_endpoint, f"--folder={tmp_path}"
    )
    documented = documented_events(poller_process)

    for backend in (prometheus, victoriametrics):
        backend.wait_for_series('{__name__=~".+",job="messaging-server"}')
        stored = set(backend.api("label/__name__/values"))
        families = {name for name in stored if not name.startswith(("target_", "otel_", "poller_"))}
        assert families
        assert families <= documented, families - documented


def documented_events(poller_process: Start) -> set[str]:
    """Return the names of the series of all metrics in the catalogue."""
    catalog = poller_process("catalog", "--format", "json")
    assert catalog.wait() == 0
    names = set()
    for metric in json.loads(catalog.stdout)["metrics"]:
        name = metric["prometheus"]
        is_histogram = metric["instrument"] == "histogram"
        names |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} if is_histogram else {name}
    return names

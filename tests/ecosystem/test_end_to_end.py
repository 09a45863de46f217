"""Standby, daemon, a real Collector, Prometheus and VictoriaMetrics: values and labels as documented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.messaging import MessagingServer
from tests.bed.otlp import Certificates
from tests.bed.process import Process
from tests.ecosystem.backends import (
    IDENTITY,
    SHIPPED,
    Collector,
    Prometheus,
    VictoriaMetrics,
    environment,
)

Start = Callable[..., Process]
StartCollector = Callable[..., Collector]


@pytest.mark.postgres
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

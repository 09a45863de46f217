"""The daemon pushes to a real Prometheus 3: names with each translation, and delivery after an outage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.messaging import MessagingServer
from tests.bed.process import Process
from tests.ecosystem.backends import IDENTITY, SHIPPED, Backend, Prometheus, environment

Start = Callable[..., Process]

METRICS = '{poller_signal="metrics"}'
DELIVERED = '{poller_signal="metrics",poller_outcome="ok"}'


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    started: list[Prometheus] = []

    def start(**keywords: Any) -> Prometheus:
        started.append(Prometheus(tmp_path / f"prometheus-{len(started)}", **keywords))
        return started[-1]

    yield start
    for backend in started:
        backend.stop()


def http(server: MessagingServer, backend: Backend, tmp_path: Path) -> dict[str, str]:
    return environment(server, backend.otlp, tmp_path, POLLER_OTLP_PROTOCOL="http/protobuf")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("strategy", "polls", "duration"),
    [
        ("UnderscoreEscapingWithSuffixes", "poller_polls_total", "poller_query_duration_seconds"),
        ("UnderscoreEscapingWithoutSuffixes", "poller_polls", "poller_query_duration"),
        ("NoUTF8EscapingWithSuffixes", "poller.polls_total", "poller.query.duration_seconds"),
        ("NoTranslation", "poller.polls", "poller.query.duration"),
    ],
)
def test_the_metrics_have_the_documented_names_and_labels(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
    strategy: str,
    polls: str,
    duration: str,
) -> None:
    prometheus = start_prometheus(strategy=strategy)
    poller_process("run", env=http(server, prometheus, tmp_path))

    for metric, value in SHIPPED.items():
        assert prometheus.wait_for_series(metric) == [(IDENTITY, value)]
    escaped = strategy.startswith("Underscore")
    query, state = ("poller_query_name", "poller_state") if escaped else ("poller.query.name", "poller.state")
    counted = prometheus.wait_for_series(f'{{"{polls}"}}')
    assert {(labels[query], labels[state]) for labels, _ in counted} == {
        ("users", "ok"), ("pending_messages", "ok"), ("attachments", "ok"), ("attachments_bytes", "ok"),
    }  # fmt: skip
    assert {labels[query] for labels, _ in prometheus.series(f'{{"{duration}"}}')} >= {"users"}
    ((labels, _),) = prometheus.series("target_info")
    assert IDENTITY.items() <= labels.items()


@pytest.mark.postgres
@pytest.mark.parametrize("window", ["0s", "30m"])
def test_an_outage_of_prometheus_leaves_no_gap(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
    window: str,
) -> None:
    """Also without a window for late samples, because the delayed exports arrive in order."""
    prometheus = start_prometheus(out_of_order=window)
    daemon = poller_process("run", env={**http(server, prometheus, tmp_path), "POLLER_LOG_LEVEL": "debug"})
    prometheus.wait_for_series("users_total")
    prometheus.stop()
    daemon.wait_for_line("WARNING .*export failed", 90)
    before = daemon.stderr.count(" export kept ")
    while daemon.stderr.count(" export kept ") < before + 10:
        daemon.wait_for_line(" export kept ", 90, after=daemon.line_count())
    prometheus.restart()
    daemon.wait_for_line("INFO .*export recovered after", 90)

    def complete() -> bool:
        """Each export has one sample of this gauge and the number of the earlier exports."""
        ((_, exports),) = prometheus.samples(f"poller_export_spool_requests{METRICS}", 600)
        ((_, delivered),) = prometheus.samples(f"poller_export_requests_total{DELIVERED}", 600)
        return len(exports) - 1 == delivered[-1][1]

    assert prometheus.wait_for(complete)
    ((_, exports),) = prometheus.samples(f"poller_export_spool_requests{METRICS}", 600)
    assert max(waiting for _, waiting in exports) >= 10

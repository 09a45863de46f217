"""Faults of a real Collector: every export arrives at its destination, in order, with its own time."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from poller.receiver.receiver import ACCEPT, UNAVAILABLE, Receiver
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process, eventually
from tests.ecosystem.backends import (
    PATIENCE,
    SHIPPED,
    Backend,
    Collector,
    Prometheus,
    VictoriaMetrics,
    environment,
)

Start = Callable[..., Process]
StartCollector = Callable[..., Collector]
StartDaemon = Callable[..., Process]

FULL_MEMORY = {"memory_limiter": {"check_interval": "100ms", "limit_mib": 1}}
"""Refuses everything, because an idle Collector uses more."""


def sink(receiver: Receiver, **queue: object) -> dict[str, object]:
    """Return an exporter as documented: a queue on disk, a single consumer, and no limit of retries."""
    return {
        "otlp_grpc/sink": {
            "endpoint": receiver.grpc_endpoint.removeprefix("http://"),
            "tls": {"insecure": True},
            "sending_queue": {"storage": "file_storage", "num_consumers": 1, **queue},
            "retry_on_failure": {"initial_interval": "100ms", "max_interval": "1s", "max_elapsed_time": 0},
        }
    }


@pytest.fixture(params=["grpc", "http/protobuf"])
def start_daemon(
    request: pytest.FixtureRequest, server: MessagingServer, poller_process: Start, tmp_path: Path
) -> StartDaemon:
    def start(collector: Collector, **more: str) -> Process:
        endpoint = collector.grpc_endpoint if request.param == "grpc" else collector.http_endpoint
        more |= {"POLLER_OTLP_PROTOCOL": request.param, "POLLER_TRACES": "false", "POLLER_LOG_LEVEL": "debug"}
        return poller_process("run", env=environment(server, endpoint, tmp_path, **more))

    return start


def wait_for_stored(daemon: Process, count: int) -> None:
    """Wait until the daemon has stored `count` more exports."""
    wanted = daemon.stderr.count(" export kept ") + count
    assert eventually(lambda: daemon.stderr.count(" export kept ") >= wanted, PATIENCE)


def check_complete(receiver: Receiver, *, late: int = 0) -> None:
    """Wait until every export has arrived: each contains the number of the earlier ones.

    Then check that all except `late` of them arrived in order.
    """

    def is_complete() -> bool:
        delivered = [
            point.value
            for point in receiver.points("poller.export.requests")
            if point.attributes["poller.outcome"] == "ok"
        ]
        return bool(delivered) and delivered[-1] == len(set(times())) - 1

    def times() -> list[int]:
        return [point.time_unix_nano for point in receiver.points("poller.export.spool.requests")]

    assert receiver.wait_until(is_complete, PATIENCE)
    arrived = times()
    latest = itertools.accumulate(arrived, max)
    assert sum(time < before for time, before in zip(arrived, latest, strict=True)) <= late


def test_a_killed_collector_loses_nothing(
    receiver: Receiver, start_collector: StartCollector, start_daemon: StartDaemon
) -> None:
    collector = start_collector(sink(receiver))
    daemon = start_daemon(collector)
    receiver.wait_until(lambda: receiver.points("users_total"), PATIENCE)
    receiver.answer = UNAVAILABLE  # so that its queue contains requests when it is killed
    wait_for_stored(daemon, 5)
    collector.stop()
    daemon.wait_for_line("WARNING .*export failed", PATIENCE)
    wait_for_stored(daemon, 5)

    receiver.answer = ACCEPT
    collector.restart()

    daemon.wait_for_line("INFO .*export recovered after", PATIENCE)
    # The Collector puts the request that it was sending at the end of its queue.
    check_complete(receiver, late=1)


def test_a_collector_without_memory_refuses_requests_and_gets_them_later(
    receiver: Receiver, start_collector: StartCollector, start_daemon: StartDaemon
) -> None:
    collector = start_collector(sink(receiver))
    daemon = start_daemon(collector)
    receiver.wait_until(lambda: receiver.points("users_total"), PATIENCE)
    collector.stop()
    collector.restart(FULL_MEMORY)
    collector.process.wait_for_line("Refusing data", PATIENCE)
    arrived = len(receiver.requests())
    wait_for_stored(daemon, 5)
    assert len(receiver.requests()) == arrived

    collector.stop()
    collector.restart()

    daemon.wait_for_line("INFO .*export recovered after", PATIENCE)
    check_complete(receiver)


def test_a_collector_with_a_full_queue_refuses_requests_and_gets_them_later(
    receiver: Receiver, start_collector: StartCollector, start_daemon: StartDaemon
) -> None:
    collector = start_collector(sink(receiver, queue_size=2))
    daemon = start_daemon(collector)
    receiver.wait_until(lambda: receiver.points("users_total"), PATIENCE)
    receiver.answer = UNAVAILABLE
    daemon.wait_for_line("WARNING .*sending queue is full", PATIENCE)
    wait_for_stored(daemon, 5)

    receiver.answer = ACCEPT

    daemon.wait_for_line("INFO .*export recovered after", PATIENCE)
    check_complete(receiver)


def test_a_collector_whose_authority_changes_gets_everything_after_the_change(
    receiver: Receiver, start_collector: StartCollector, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """The poller reads the file of the authority again for each connection."""
    authority, certificate, key = (tmp_path / name for name in ("ca.pem", "server.pem", "server.key"))
    trust(authority, issue(certificate, key))
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    collector = start_collector(sink(receiver), tls=tls)
    daemon = start_daemon(collector, OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority))
    receiver.wait_until(lambda: receiver.points("users_total"), PATIENCE)

    collector.stop()
    successor = issue(certificate, key)
    collector.restart()
    # Of any severity: only the first failure is a warning, and the stop may have interrupted that request.
    daemon.wait_for_line("export failed.*certificate", PATIENCE)
    wait_for_stored(daemon, 3)
    trust(authority, successor)

    daemon.wait_for_line("INFO .*export recovered after", PATIENCE)
    check_complete(receiver)


def issue(certificate: Path, key: Path) -> trustme.CA:
    """Write a certificate of a new authority and its key, and return the authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return authority


def trust(file: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(str(file))


def test_a_result_above_the_collectors_limit_arrives_in_parts(
    receiver: Receiver, start_collector: StartCollector, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """The Collector answers RESOURCE_EXHAUSTED, or with a status of HTTP."""
    rows, limit = 10_000, 2**20
    collector = start_collector(
        sink(receiver), grpc={"max_recv_msg_size_mib": limit // 2**20}, http={"max_request_body_size": limit}
    )
    file = tmp_path / "many.yaml"
    file.write_text(many_series(rows, limit), encoding="utf-8")

    daemon = start_daemon(collector, POLLER_QUERIES=str(file))

    def all_arrived() -> bool:
        return len({point.attributes["name"] for point in receiver.points("rows")}) == rows

    assert receiver.wait_until(all_arrived, PATIENCE), str(daemon)
    assert not receiver.points("poller.export.rejected")


def many_series(rows: int, size: int) -> str:
    """Return a query file whose result has more than `size` bytes."""
    sql = f"SELECT repeat('x', {2 * size // rows}) || g AS name, g AS n FROM generate_series(1, {rows}) g"
    metric = {
        "name": "rows",
        "unit": "{row}",
        "description": "Rows.",
        "value_column": "n",
        "attribute_columns": ["name"],
    }
    query = {"name": "many", "sql": sql, "interval": "5s", "max_series": rows, "metrics": [metric]}
    return json.dumps({"queries": [query]})


@pytest.mark.slow
def test_an_outage_of_an_hour_leaves_no_gap_in_prometheus_and_victoriametrics(
    prometheus: Prometheus,
    victoriametrics: VictoriaMetrics,
    start_collector: StartCollector,
    start_daemon: StartDaemon,
) -> None:
    """60 exports wait, as after an hour with one per minute. The daemon is killed after half of them."""

    def to(backend: Backend) -> dict[str, object]:
        return {
            "endpoint": backend.otlp,
            "sending_queue": {"storage": "file_storage", "num_consumers": 1},
            "retry_on_failure": {"initial_interval": "100ms", "max_interval": "1s", "max_elapsed_time": 0},
        }

    collector = start_collector(
        {"otlp_http/prometheus": to(prometheus), "otlp_http/victoriametrics": to(victoriametrics)}
    )
    daemon = start_daemon(collector)
    for backend in (prometheus, victoriametrics):
        backend.wait_for_series("users_total")
    collector.stop()
    wait_for_stored(daemon, 30)
    daemon.close()
    daemon = start_daemon(collector)
    wait_for_stored(daemon, 30)
    collector.restart()
    daemon.wait_for_line("INFO .*export recovered after", PATIENCE)

    for backend in (prometheus, victoriametrics):
        values = backend.wait_for(functools.partial(waiting_until_recovery, backend))
        # Each stored export contains the number of those before it.
        assert set(range(int(max(values)))) <= set(values)
        ((_, samples),) = backend.samples("users_total", 3600)
        assert {value for _, value in samples} == {SHIPPED["users_total"]}


def waiting_until_recovery(backend: Backend) -> list[float]:
    """Return the number of waiting requests at each export, as soon as all 60 have been delivered."""
    series = backend.samples('poller_export_spool_requests{poller_signal="metrics"}', 3600)
    values = [value for _, samples in series for _, value in samples]
    return values if max(values) >= 59 and values[-1] == 0 else []

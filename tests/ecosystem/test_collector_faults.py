"""Faults of a real Collector: every export arrives at its destination, in order, with its own time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.receiver.receiver import ACCEPT, UNAVAILABLE, Receiver
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process, eventually
from tests.ecosystem.backends import PATIENCE, Collector, environment

Start = Callable[..., Process]
StartCollector = Callable[..., Collector]

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
) -> Callable[[Collector], Process]:
    def start(collector: Collector) -> Process:
        endpoint = collector.grpc_endpoint if request.param == "grpc" else collector.http_endpoint
        more = {"POLLER_OTLP_PROTOCOL": request.param, "POLLER_TRACES": "false", "POLLER_LOG_LEVEL": "debug"}
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
    latest = list(itertools.accumulate(times(), max))
    assert sum(time < before for time, before in zip(times(), latest, strict=True)) <= late


@pytest.mark.postgres
def test_a_killed_collector_loses_nothing(
    receiver: Receiver, start_collector: StartCollector, start_daemon: Callable[[Collector], Process]
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


@pytest.mark.postgres
def test_a_collector_without_memory_refuses_requests_and_gets_them_later(
    receiver: Receiver, start_collector: StartCollector, start_daemon: Callable[[Collector], Process]
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


@pytest.mark.postgres
def test_a_collector_with_a_full_queue_refuses_requests_and_gets_them_later(
    receiver: Receiver, start_collector: StartCollector, start_daemon: Callable[[Collector], Process]
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

"""A collector's outage leaves no gap: real daemon, database and sockets, and a kill during the outage."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.receiver.receiver import ACCEPT, CUT, HANG, UNAVAILABLE, CannedAnswer, Receiver, throttle
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process, eventually

Start = Callable[..., Process]


def count_stored(process: Process) -> int:
    """Return how many stored exports a daemon has logged."""
    return process.stderr.count(" export kept ")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_outage_with_a_kill_in_the_middle_loses_no_export(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path, protocol: str
) -> None:
    """Every export arrives, in order, with its own time; a duplicate is identical byte for byte."""

    def run(instance: str) -> Process:
        endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
        return poller_process(
            "run",
            env={
                "POLLER_DATABASE_URL": server.standby_dsn,
                "POLLER_OTLP_ENDPOINT": endpoint,
                "POLLER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf",
                "POLLER_INSTANCE": instance,
                "POLLER_INTERVAL": "1s",
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_STATE_DIR": str(tmp_path / "state"),
                "POLLER_LOG_LEVEL": "debug",
                # On a machine that stalls no request may time out, and the last request needs its time.
                "POLLER_EXPORT_TIMEOUT": "2m",
                "POLLER_GRACE_PERIOD": "2m",
            },
        )

    first = run("first")
    receiver.wait_for(lambda points: [point for point in points if point.metric == "users_total"], 120)
    receiver.answer = HANG
    receiver.wait_for_attempts(len(receiver.attempts()) + 1)
    assert eventually(lambda: count_stored(first) >= 8, 60)
    receiver.stop()  # while it processes a request
    first.wait_for_line("WARNING .*export failed", 120)
    before = count_stored(first)
    assert eventually(lambda: count_stored(first) >= before + 8, 60)
    first.send(signal.SIGKILL)
    first.wait()

    second = run("second")
    second.wait_for_line(r"INFO .*sending \d+ requests? left over from the previous run first", 120)
    second.wait_for_line("WARNING .*export failed", 120)
    assert eventually(lambda: count_stored(second) >= 8, 60)
    sick = CannedAnswer("INTERNAL", 500, "configured to fail")
    receiver.answer_next(UNAVAILABLE, throttle(1), CUT, sick, ACCEPT, ACCEPT, CUT, UNAVAILABLE)
    receiver.answer = ACCEPT
    receiver.start()
    second.wait_for_line("INFO .*export recovered after .*; delivered since then:", 120)
    second.send(signal.SIGTERM)
    assert second.wait(120) == 0

    exports = [
        (point.resource["service.instance.id"], point.time_unix_nano, received.request.SerializeToString())
        for received in receiver.requests()
        for point in received.points()[:1]
    ]
    times = [time for _, time, _ in exports]
    assert times == sorted(times)
    assert len(set(exports)) == len(set(times))
    instances = [str(instance) for instance, *_ in sorted(set(exports), key=lambda export: export[1])]
    assert instances == sorted(instances)
    # The last export may be stored but not logged when the daemon is killed.
    assert instances.count("first") - count_stored(first) in (0, 1)
    assert instances.count("second") == count_stored(second)
    for process in (first, second):
        assert "Traceback" not in process.stderr


def test_a_daemon_that_stops_during_an_outage_logs_what_happens_to_undelivered_exports(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    # Shutdown does not wait for an error that only an operator can fix, even with a long grace period.
    receiver.answer = CannedAnswer("UNAUTHENTICATED", 401, "configured to reject every client")
    env = {
        "POLLER_DATABASE_URL": server.standby_dsn,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_EXPORT_INTERVAL": "200ms",
        "POLLER_GRACE_PERIOD": "1h",
    }
    for folder, message in (
        ({}, r"\d+ requests? not delivered and lost; POLLER_STATE_DIR is not set"),
        (
            {"POLLER_STATE_DIR": str(tmp_path)},
            rf"\d+ requests? not delivered; kept in {tmp_path}.* for the next start",
        ),
    ):
        process = poller_process("run", env={**env, **folder})
        process.wait_for_line("export failed", 120)
        process.send(signal.SIGTERM)
        assert process.wait(120) == 0
        process.wait_for_line(message)
        process.wait_for_line("stopped")

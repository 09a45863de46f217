"""Kills of the daemon at any moment, with an unreliable collector, lose no stored export."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from poller.receiver.receiver import ACCEPT, CUT, HANG, UNAVAILABLE, Receiver
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process, eventually

Start = Callable[..., Process]

KILLS = int(os.environ.get("STORM_KILLS", "4"))
"""50 test more moments and take several minutes."""


def test_a_storm_of_kills_under_a_flapping_collector_loses_nothing(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """Each stored export arrives, oldest first; a duplicate is identical."""

    def run(number: int) -> Process:
        return poller_process(
            "run",
            env={
                "POLLER_DATABASE_URL": server.standby_dsn,
                "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "POLLER_INSTANCE": f"{number:03d}",
                "POLLER_INTERVAL": "1s",
                "POLLER_EXPORT_INTERVAL": "100ms",
                "POLLER_EXPORT_TIMEOUT": "2m",
                "POLLER_GRACE_PERIOD": "2m",
                "POLLER_STATE_DIR": str(tmp_path / "state"),
                "POLLER_LOG_LEVEL": "debug",
            },
        )

    def count_stored(process: Process) -> int:
        return process.stderr.count(" export kept ")

    chance = random.Random(1)
    daemons = []
    for number in range(KILLS):
        receiver.answer = chance.choice([ACCEPT, HANG, UNAVAILABLE, CUT])
        daemons.append(run(number))
        least = chance.randrange(12)
        assert eventually(lambda least=least: count_stored(daemons[-1]) >= least, 120), daemons[-1]  # type: ignore[misc]
        receiver.answer = chance.choice([ACCEPT, UNAVAILABLE])
        daemons[-1].send(signal.SIGKILL)
        daemons[-1].wait()
    receiver.answer = ACCEPT
    last = run(KILLS)
    daemons.append(last)
    last.wait_for_line("polling .* queries", 120)  # it handles signals from here on
    last.send(signal.SIGTERM)
    assert last.wait(180) == 0

    exports = [
        (
            str(point.resource["service.instance.id"]),
            point.time_unix_nano,
            received.request.SerializeToString(),
        )
        for received in receiver.requests()
        for point in received.points()[:1]
    ]
    assert len(set(exports)) == len({time for _, time, _ in exports})
    firsts = list(dict.fromkeys(time for _, time, _ in exports))
    assert firsts == sorted(firsts)
    arrived = [instance for instance, *_ in set(exports)]
    for number, daemon in enumerate(daemons):
        assert "Traceback" not in daemon.stderr
        # The last export may be stored but not logged when the daemon is killed.
        assert arrived.count(f"{number:03d}") - count_stored(daemon) in (
            (0, 1) if daemon is not last else (0,)
        )
    assert not list((tmp_path / "state").glob("*damaged*"))
    files = {path.name for path in (tmp_path / "state").iterdir()}
    assert files <= {
        "spool.db",
        "spool.db-journal",
        "spool.lock",
        "spool.settled",
        "values.db",
        "values.db-journal",
    }

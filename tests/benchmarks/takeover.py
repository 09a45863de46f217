"""Time without a poll when the leader of an election goes away, with the default lease.

    python -m tests.benchmarks.takeover [REPETITIONS]

The output is one JSON object: seconds from the end of the leader to the first poll of the next one, the
median and the maximum, for a leader that is stopped (SIGTERM), killed (SIGKILL), frozen (SIGSTOP) or cut off
from the election server. Two daemons poll one database of a server of its own every second.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from poller.demo.cluster import Cluster
from tests.bed.candidate import Candidate, election_url, write_target
from tests.bed.process import Process
from tests.bed.proxy import Proxy


def start(*arguments: str, env: Mapping[str, str]) -> Process:
    """Start a command without a state folder, so that no repetition finds the exports of another one."""
    env = {**env, "POLLER_STATE_DIR": ""}
    return Process([sys.executable, "-m", "poller", *arguments], env=env)


def takeover(folder: Path, dsn: str, end: str) -> float:
    """Return the seconds from the end of the leader to the first poll of the next one."""
    with Proxy(int(str(conninfo_to_dict(dsn)["port"]))) as proxy:
        first = Candidate("first", folder, start, election_url(proxy.dsn(dsn)))
        assert first.polls()
        second = Candidate("second", folder, start, election_url(dsn))
        second.line("another process holds the lock")
        time.sleep(5)
        ended = time.time()
        if end == "cut":
            proxy.hang()
        else:
            first.process.send(signal.Signals[f"SIG{end}"])
        assert second.polls(120.0)
        seconds = second.points()[0].time_unix_nano / 1e9 - ended
        proxy.resume()
        first.close()
        second.close()
    return seconds


def main(repetitions: int) -> None:
    with Cluster(None) as cluster, tempfile.TemporaryDirectory() as name:
        dsn, folder = cluster.primary.dsn(), Path(name)
        write_target(folder, dsn)
        figures = {}
        for end in ("TERM", "KILL", "STOP", "cut"):
            seconds = [takeover(folder, dsn, end) for _ in range(repetitions)]
            figures[end] = {"median": round(statistics.median(seconds), 1), "max": round(max(seconds), 1)}
        sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

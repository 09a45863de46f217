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
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from poller.demo.cluster import Cluster
from poller.receiver.receiver import Receiver
from tests.bed.process import Process, eventually
from tests.bed.proxy import Proxy


class Contender:
    """One daemon, and the receiver of its exports."""

    def __init__(self, name: str, folder: Path, election: str) -> None:
        self.receiver = Receiver()
        self.receiver.start()
        self.process = Process(
            [sys.executable, "-m", "poller", "run"],
            env={
                "POLLER_INSTANCE": name,
                "POLLER_TARGETS": str(folder / "targets.yaml"),
                "POLLER_QUERIES": str(folder / "queries.yaml"),
                "POLLER_OTLP_ENDPOINT": self.receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_LEADER_ELECTION": election,
            },
        )

    def first_poll(self) -> float:
        """Wait for the first exported value; return its time in seconds since 1970."""
        assert eventually(lambda: bool(self.receiver.points("n")), 120.0), self.process
        return self.receiver.points("n")[0].time_unix_nano / 1e9

    def close(self) -> None:
        self.process.close()
        self.receiver.stop()


def takeover(folder: Path, dsn: str, end: str) -> float:
    """Return the seconds from the end of the leader to the first poll of the next one."""
    parts = conninfo_to_dict(dsn)
    with Proxy(int(str(parts["port"]))) as proxy:
        through = "&".join(f"{name}={value}" for name, value in {**parts, "port": proxy.port}.items())
        first = Contender("first", folder, f"postgresql:///?{through}")
        first.first_poll()
        direct = "&".join(f"{name}={value}" for name, value in parts.items())
        second = Contender("second", folder, f"postgresql:///?{direct}")
        second.process.wait_for_line("another process leads")
        time.sleep(5)
        ended = time.time()
        if end == "cut":
            proxy.hang()
        else:
            first.process.send(signal.Signals[f"SIG{end}"])
        seconds = second.first_poll() - ended
        proxy.resume()
        first.close()
        second.close()
    return seconds


def main(repetitions: int) -> None:
    metric = {"name": "n", "unit": "{row}", "description": "Rows.", "value_column": "n"}
    query = {"name": "q", "sql": "SELECT 1 AS n", "interval": "1s", "timeout": "900ms", "metrics": [metric]}
    with Cluster(None) as cluster, tempfile.TemporaryDirectory() as name:
        dsn, folder = cluster.primary.dsn(), Path(name)
        (folder / "queries.yaml").write_text(json.dumps({"queries": [query]}))
        (folder / "only.url").write_text(dsn)
        target = {"name": "only", "url_file": "only.url", "require_standby": "false"}
        (folder / "targets.yaml").write_text(json.dumps({"targets": [target]}))
        figures = {}
        for end in ("TERM", "KILL", "STOP", "cut"):
            seconds = [takeover(folder, dsn, end) for _ in range(repetitions)]
            figures[end] = {"median": round(statistics.median(seconds), 1), "max": round(max(seconds), 1)}
        sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

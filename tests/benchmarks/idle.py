"""CPU of a daemon that has little to do: the shipped queries every 5 minutes, an export every minute.

    python -m tests.benchmarks.idle [--minutes 5] [--traces]

It makes a primary and a standby of its own, runs one daemon for each protocol at the same time and prints
CPU in seconds per day, extrapolated, and how often a minute a thread of the daemon woke up. A window of 5
minutes holds one poll of each query and five exports; a shorter one holds fewer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from poller.demo.cluster import Cluster
from poller.receiver.receiver import Receiver
from tests.benchmarks import loads
from tests.benchmarks.contestants import PATIENCE, Process, environment, ours
from tests.benchmarks.figures import cpu

_DAY = 86_400.0
_POLL, _EXPORT = "5m", "60s"


def measured(
    dsn: str, seconds: float, protocols: Sequence[str], *, traces: bool
) -> dict[str, dict[str, float]]:
    """CPU seconds per day and wake-ups per minute of a daemon for each of `protocols`."""
    with contextlib.ExitStack() as stack:
        pids = {protocol: _started(stack, dsn, protocol, traces=traces) for protocol in protocols}
        before = {name: (cpu(pid), _wakeups(pid), time.monotonic()) for name, pid in pids.items()}
        time.sleep(seconds)
        found = {}
        for name, pid in pids.items():
            used, woken, since = before[name]
            passed = time.monotonic() - since
            found[name] = {
                "CPU per day (s)": (cpu(pid) - used) * _DAY / passed,
                "wake-ups per minute": (_wakeups(pid) - woken) * 60 / passed,
            }
        return found


def _started(stack: contextlib.ExitStack, dsn: str, protocol: str, *, traces: bool) -> int:
    """The process id of a daemon that has made its first export."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
    receiver = stack.enter_context(Receiver(keep=1))
    queries = folder / "queries.yaml"
    queries.write_text(json.dumps(ours(loads.state(pace=1), _POLL)))
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    given = environment(queries, dsn, endpoint, protocol, traces, _EXPORT)
    process = Process([sys.executable, "-m", "poller", "run"], folder, given)
    stack.callback(process.close)
    deadline = time.monotonic() + PATIENCE
    while not receiver.requests():
        process.check()
        if time.monotonic() > deadline:
            raise TimeoutError("the poller exports nothing")
        time.sleep(0.1)
    time.sleep(5)  # so that what the start leaves to do is done
    return process.process.pid


def _wakeups(pid: int) -> int:
    """How often the threads of a process went to sleep by themselves; threads that ended do not count."""
    told = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.idle")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--traces", action="store_true", help="export spans as well")
    given = parser.parse_args()
    with Cluster() as cluster:
        loads.fill(cluster.primary.dsn(), 0.001)
        cluster.wait_replayed(600)
        told = measured(cluster.standby.dsn(), 60 * given.minutes, ["grpc", "http"], traces=given.traces)
    print(json.dumps(told, indent=2))

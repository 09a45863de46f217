"""CPU of an almost idle daemon: the shipped queries every 5 minutes, an export every minute.

    python -m tests.benchmarks.idle [--minutes 5] [--traces]

It creates its own primary and standby, runs one daemon for each protocol at the same time and prints the
extrapolated CPU in seconds per day and the wake-ups of the daemon's threads per minute. A window of 5 minutes
contains one poll of each query and five exports; a shorter window contains fewer.
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
from tests.benchmarks.figures import cpu
from tests.benchmarks.measured_programs import PATIENCE, Process, environment, ours

_DAY = 86_400.0
_POLL, _EXPORT = "5m", "60s"


def measured(
    dsn: str, seconds: float, protocols: Sequence[str], *, traces: bool, sdk: bool = False
) -> dict[str, dict[str, float]]:
    """Return CPU seconds per day and wake-ups per minute of a daemon for each of `protocols`.

    With `sdk`, also of a process in which only the SDK exports as many data points (`sdk_export`).
    """
    with contextlib.ExitStack() as stack:
        pids = {protocol: _started(stack, dsn, protocol, traces=traces) for protocol in protocols}
        if sdk:
            pids |= {f"the SDK alone, {protocol}": _sdk(stack, protocol) for protocol in protocols}
        before = {name: (cpu(pid), _wakeups(pid), time.monotonic()) for name, pid in pids.items()}
        time.sleep(seconds)
        results = {}
        for name, pid in pids.items():
            used, woken, since = before[name]
            passed = time.monotonic() - since
            results[name] = {
                "CPU per day (s)": (cpu(pid) - used) * _DAY / passed,
                "wake-ups per minute": (_wakeups(pid) - woken) * 60 / passed,
            }
        return results


def _started(stack: contextlib.ExitStack, dsn: str, protocol: str, *, traces: bool) -> int:
    """Return the process id of a daemon after its first export."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
    receiver = stack.enter_context(Receiver(keep=1))
    queries = folder / "queries.yaml"
    queries.write_text(json.dumps(ours(loads.state(pace=1), _POLL)))
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    variables = environment(queries, dsn, endpoint, protocol, traces, _EXPORT)
    process = Process([sys.executable, "-m", "poller", "run"], folder, variables)
    return _exporting(stack, process, receiver)


def _sdk(stack: contextlib.ExitStack, protocol: str) -> int:
    """Return the process id of the SDK's exporter after its first export."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
    receiver = stack.enter_context(Receiver(keep=1))
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    process = Process([sys.executable, "-m", "tests.benchmarks.sdk_export", protocol, endpoint], folder)
    return _exporting(stack, process, receiver)


def _exporting(stack: contextlib.ExitStack, process: Process, receiver: Receiver) -> int:
    stack.callback(process.close)
    deadline = time.monotonic() + PATIENCE
    while not receiver.requests():
        process.check()
        if time.monotonic() > deadline:
            raise TimeoutError("it exports nothing")
        time.sleep(0.1)
    time.sleep(5)  # for the work that follows the start
    return process.process.pid


def _wakeups(pid: int) -> int:
    """Return the voluntary context switches of the running threads of a process."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.idle")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--traces", action="store_true", help="export spans as well")
    options = parser.parse_args()
    with Cluster() as cluster:
        loads.fill(cluster.primary.dsn(), 0.001)
        cluster.wait_replayed(600)
        costs = measured(
            cluster.standby.dsn(), 60 * options.minutes, ["grpc", "http"], traces=options.traces, sdk=True
        )
    print(json.dumps(costs, indent=2))

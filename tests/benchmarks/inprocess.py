"""Cost of polls and exports in this process, without a schedule.

    python -m tests.benchmarks.inprocess QUERIES DSN ENDPOINT PROTOCOL TRACES POLLS [SELF_METRICS]

The objects are those of the daemon, created by the same code, but without its scheduler. The output is one
JSON object: seconds of wall time and of CPU for each poll with its export, and the memory in MB after 50
polls and at the end.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

from poller.config.load_settings import load
from poller.config.queries.load import open_catalog
from poller.daemon.target_factory import TargetFactory
from poller.telemetry.logging import configure
from tests.benchmarks.figures import memory
from tests.benchmarks.measured_programs import HOURLY, environment

_WARM = 3
_EARLY = 50


def main(
    queries: Path, dsn: str, endpoint: str, protocol: str, traces: bool, polls: int, self_metrics: str
) -> None:
    configure("text", "error")
    variables = environment(queries, dsn, endpoint, protocol, traces, HOURLY)
    settings = load(variables | {"POLLER_SELF_METRICS": self_metrics})
    catalog = open_catalog(settings)
    factory = TargetFactory(settings)
    push = factory.exporter
    assert push is not None
    cycle = factory.open(settings.only_target(), catalog.queries).cycle
    wall, cpu = [], []
    early: list[float] = []
    gc.freeze()
    for number in range(polls + _WARM):
        began = time.monotonic(), time.process_time()
        results = cycle.run(catalog.queries)
        delivered = push.flush(60)
        ended = time.monotonic(), time.process_time()
        if not delivered or any(result.outcome != "ok" for result in results):
            raise RuntimeError("a poll was not good, or its export was not taken")
        if number >= _WARM:
            wall.append(ended[0] - began[0])
            cpu.append(ended[1] - began[1])
        if number == _EARLY:
            early.append(memory(os.getpid()).rss)
    costs = {"wall": wall, "cpu": cpu, "rss_early": early, "rss": [memory(os.getpid()).rss]}
    print(json.dumps(costs), flush=True)
    os._exit(0)


if __name__ == "__main__":
    file, dsn, endpoint, protocol, traces, polls, *level = sys.argv[1:]
    main(Path(file), dsn, endpoint, protocol, traces == "true", int(polls), *(level or ["query"]))

"""Measure ours beside its peers, on one standby and with the same queries, and print what each costs.

    python -m tests.benchmarks [--json FILE] [--rounds 3] [--polls 5] [--scale 1] [--loads 1,10,100,1000]

It makes a primary and a standby of its own, fetches query-exporter from PyPI and two exporters of Debian into
a folder that it removes again, and skips loudly what it cannot have. CPU is told with everything: ours with
the OTLP export of all it tells of itself, theirs with the scrape. The contestants take turns, round after
round; what is told is the median, with the least and the greatest, and how many times ours it is. Wall time
depends on what else the machine does, CPU time less. Two rounds took a quarter of an hour on two busy cores,
and 3 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path

from poller.demo.cluster import Cluster
from tests.benchmarks import contestants, loads, peers
from tests.benchmarks.measure import Bench
from tests.benchmarks.results import Results

OURS = "ours"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--polls", type=int, default=5, help="polls of each contestant in a round")
    parser.add_argument("--scale", type=float, default=1.0, help="of the tables; 1: a million users")
    parser.add_argument("--loads", default="1,10,100,1000", help="numbers of trivial queries")
    parser.add_argument("--series", type=int, default=10_000, help="of the one query with many")
    parser.add_argument("--long", type=int, default=50, help="polls before memory is looked at")
    parser.add_argument(
        "--others", action=argparse.BooleanOptionalAction, default=True, help="the peers, and HTTP and spans"
    )
    parser.add_argument("--idle", type=float, default=300.0, help="seconds to watch an idle daemon")
    given = parser.parse_args()
    results = Results()
    try:
        measure(
            results,
            rounds=given.rounds,
            polls=given.polls,
            scale=given.scale,
            trivial=[int(count) for count in given.loads.split(",")],
            series=given.series,
            long=given.long,
            others=given.others,
            idle=given.idle,
        )
    finally:  # what was measured until then was measured
        if given.json:
            given.json.write_text(json.dumps(results.as_json(), indent=2) + "\n")
        print(results.as_markdown(OURS))


def measure(
    results: Results,
    *,
    rounds: int,
    polls: int,
    scale: float,
    trivial: list[int],
    series: int,
    long: int,
    others: bool,
    idle: float,
) -> None:
    """Add everything to `results`; without `others` of ours alone, over gRPC.

    Memory is looked at after `long` polls.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-peers-") as folder, Cluster() as cluster:
        found = _find(Path(folder), results) if others else {}
        _tell(f"filling the tables at scale {scale:g}")
        loads.fill(cluster.primary.dsn(), scale)
        cluster.wait_replayed(600)
        results.about |= {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load average before": os.getloadavg()[0],
            "rounds": rounds,
            "polls": polls,
            "scale": scale,
        }
        bench = Bench(cluster.standby, results, polls, _tell)
        state = loads.state(pace=3 if scale > 0.01 else 1)
        every = [*map(loads.trivial, trivial), state, loads.wide(series)]
        most = loads.trivial(max(trivial))
        ours: dict[str, contestants.Start] = {OURS: contestants.Ours}
        if others:
            ours[f"{OURS}, HTTP"] = partial(contestants.Ours, protocol="http")
            ours[f"{OURS}, spans"] = partial(contestants.Ours, traces=True)
        for number in range(1, rounds + 1):
            for load in every:
                _tell(f"round {number} of {rounds}: {load.name}")
                for name, start in {**ours, **found}.items():
                    if name in (OURS, *found) or load.name in (most.name, "4 state"):
                        bench.costs(name, start, load)
                bench.in_process(OURS, load)
                if others:
                    bench.in_process(f"{OURS}, HTTP", load, protocol="http")
                bench.floor("libpq", load)
            bench.in_process(f"{OURS}, no self-metrics", most, self_metrics="off")
            bench.backend(OURS, min(10, max(trivial)), 100 * polls)
            bench.psql("psql", most)
            bench.commands(OURS)
        _tell("counting round trips, and over a link of 20 ms")
        for name, start in {**ours, **found}.items():
            bench.traffic(name, start, loads.trivial(min(100, max(trivial))))
            bench.traffic(name, start, state)
        for name, start in {OURS: contestants.Ours, **found}.items():
            bench.link(name, start, loads.trivial(min(100, max(trivial))))
        _tell(f"memory after {long} polls")
        bench.memories({**ours, **found}, loads.trivial(4), long)
        bench.lasting(OURS, loads.trivial(4), long)
        bench.queue(OURS)
        _tell(f"CPU of {idle} s with little to do")
        bench.idle(OURS, idle)
        results.about["load average after"] = os.getloadavg()[0]


def _find(folder: Path, results: Results) -> dict[str, contestants.Start]:
    wanted = {
        "query-exporter": (peers.query_exporter(folder), contestants.query_exporter),
        "postgres_exporter": (peers.debian("postgres_exporter", folder), contestants.postgres_exporter),
        "sql_exporter": (peers.debian("sql_exporter", folder), contestants.sql_exporter),
    }
    found: dict[str, contestants.Start] = {}
    for name, (program, make) in wanted.items():
        if isinstance(program, str):
            results.skipped[name] = program
            _tell(f"SKIPPED: {name} is NOT measured: {program}")
        else:
            results.about[name] = peers.version(program)
            found[name] = make(program)
    return found


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

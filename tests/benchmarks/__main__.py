"""Costs of the poller and its peers, on one standby and with the same queries.

    python -m tests.benchmarks [--json FILE] [--rounds 3] [--polls 5] [--scale 1] [--loads 1,10,100,1000]

It creates its own primary and standby, fetches query-exporter from PyPI and two exporters of Debian into a
temporary folder, takes the Collector with the sqlqueryreceiver that `python -m tests.ecosystem.builds` built,
and reports missing programs as skipped. CPU includes everything: for the poller the OTLP export of all its
own metrics, for the sqlqueryreceiver the OTLP export, for the others the scrape. The programs take turns,
round after round; the output is the median, the minimum and maximum, and the ratio to the poller. Wall
time depends on the load of the machine, CPU time depends less on it. Two rounds took a quarter of an hour on
two busy cores, and 3 GB of disk.
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
from tests.benchmarks import loads, measured_programs, peers
from tests.benchmarks.measure import Bench
from tests.benchmarks.results import Results

OURS, SQLQUERY = "ours", "sqlqueryreceiver"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--polls", type=int, default=5, help="polls of each program in a round")
    parser.add_argument("--scale", type=float, default=1.0, help="of the tables; 1: a million users")
    parser.add_argument("--loads", default="1,10,100,1000", help="numbers of trivial queries")
    parser.add_argument("--series", type=int, default=10_000, help="of the one query with many")
    parser.add_argument("--long", type=int, default=50, help="polls before memory is looked at")
    parser.add_argument(
        "--others", action=argparse.BooleanOptionalAction, default=True, help="the peers, and HTTP and spans"
    )
    parser.add_argument("--idle", type=float, default=300.0, help="seconds to watch an idle daemon")
    options = parser.parse_args()
    results = Results()
    try:
        measure(
            results,
            rounds=options.rounds,
            polls=options.polls,
            scale=options.scale,
            trivial=[int(count) for count in options.loads.split(",")],
            series=options.series,
            long=options.long,
            others=options.others,
            idle=options.idle,
        )
    finally:  # also print an incomplete result
        if options.json:
            options.json.write_text(json.dumps(results.as_json(), indent=2) + "\n")
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
    """Add all figures to `results`; without `others` only those of the poller, over gRPC.

    Memory is measured after `long` polls.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-peers-") as folder, Cluster() as cluster:
        peer_starts = _find(Path(folder), results) if others else {}
        timed: dict[str, measured_programs.Start] = {}
        if others and isinstance(collector := peers.collector(), Path):
            timed[SQLQUERY] = partial(measured_programs.Sqlquery, program=collector, timed=True)
        _print_progress(f"filling the tables at scale {scale:g}")
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
        bench = Bench(cluster.standby, results, polls, _print_progress)
        state = loads.state(pace=3 if scale > 0.01 else 1)
        every = [*map(loads.trivial, trivial), state, loads.wide(series)]
        most = loads.trivial(max(trivial))
        ours: dict[str, measured_programs.Start] = {OURS: measured_programs.Ours}
        if others:
            ours[f"{OURS}, HTTP"] = partial(measured_programs.Ours, protocol="http")
            ours[f"{OURS}, spans"] = partial(measured_programs.Ours, traces=True)
        for number in range(1, rounds + 1):
            for load in every:
                _print_progress(f"round {number} of {rounds}: {load.name}")
                for name, start in {**ours, **peer_starts}.items():
                    if name in (OURS, *peer_starts) or load.name in (most.name, "4 state"):
                        bench.costs(name, start, load)
                for name, start in timed.items():
                    bench.walls(name, start, load)
                bench.in_process(OURS, load)
                if others:
                    bench.in_process(f"{OURS}, HTTP", load, protocol="http")
                bench.floor("libpq", load)
            bench.in_process(f"{OURS}, no self-metrics", most, self_metrics="off")
            bench.backend(OURS, min(10, max(trivial)), 100 * polls)
            bench.psql("psql", most)
            bench.commands(OURS)
        _print_progress("counting round trips, and over a link of 20 ms")
        for name, start in {**ours, **peer_starts}.items():
            bench.traffic(name, start, loads.trivial(min(100, max(trivial))))
            bench.traffic(name, start, state)
        for name, start in {OURS: measured_programs.Ours, **peer_starts, **timed}.items():
            bench.link(name, start, loads.trivial(min(100, max(trivial))))
        _print_progress(f"memory after {long} polls")
        bench.memories({**ours, **peer_starts}, loads.trivial(4), long)
        bench.lasting(OURS, loads.trivial(4), long)
        bench.queue(OURS)
        _print_progress(f"CPU of {idle} s with little to do")
        bench.idle(OURS, idle)
        results.about["load average after"] = os.getloadavg()[0]


def _find(folder: Path, results: Results) -> dict[str, measured_programs.Start]:
    programs = {
        "query-exporter": (peers.query_exporter(folder), measured_programs.query_exporter),
        "postgres_exporter": (peers.debian("postgres_exporter", folder), measured_programs.postgres_exporter),
        "sql_exporter": (peers.debian("sql_exporter", folder), measured_programs.sql_exporter),
        SQLQUERY: (peers.collector(), measured_programs.sqlquery_receiver),
    }
    results.about["Collector"] = peers.COLLECTOR.version("OpenTelemetry Collector")
    starts: dict[str, measured_programs.Start] = {}
    for name, (program, make) in programs.items():
        if isinstance(program, str):
            results.skipped[name] = program
            _print_progress(f"SKIPPED: {name} is NOT measured: {program}")
        else:
            results.about[name] = peers.version(program)
            starts[name] = make(program)
    return starts


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

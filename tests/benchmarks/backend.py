"""CPU of the server's backend for a tick on an open connection, as in a daemon with frequent ticks.

    python -m tests.benchmarks.backend [--queries 10] [--ticks 500]

It creates its own primary and standby and polls trivial queries as the daemon does, without export. The
output is the median of five rounds, in milliseconds per tick.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import psycopg

from poller.config.load_settings import load
from poller.config.queries.load import open_catalog
from poller.daemon.build import open_replica
from poller.demo.cluster import Cluster
from poller.postgres.admission import Admission
from tests.benchmarks.figures import cpu
from tests.benchmarks.loads import trivial
from tests.benchmarks.measured_programs import HOURLY, environment, ours

_ROUNDS = 5
_ACTIVE = "SELECT pid FROM pg_stat_activity WHERE application_name = 'obscura-poller'"


def measured(dsn: str, queries: int, ticks: int) -> float:
    """Return the milliseconds of the backend's CPU for one tick of so many trivial queries."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "queries.yaml")
        file.write_text(json.dumps(ours(trivial(queries), HOURLY)))
        settings = load(environment(file, dsn, "http://127.0.0.1:9", "grpc", False, HOURLY))
        queries_of_catalog = open_catalog(settings).queries
        replica = open_replica(settings, settings.only_target(), Admission())
        try:
            for _ in range(20):
                assert all(answer.rows is not None for answer in replica.fetch(queries_of_catalog))
            with psycopg.connect(dsn) as connection:
                ((pid,),) = connection.execute(_ACTIVE).fetchall()
            rounds = []
            for _ in range(_ROUNDS):
                before = cpu(pid)
                for _ in range(ticks // _ROUNDS):
                    replica.fetch(queries_of_catalog)
                rounds.append(1e3 * (cpu(pid) - before) / (ticks // _ROUNDS))
            return statistics.median(rounds)
        finally:
            replica.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.backend")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--ticks", type=int, default=500)
    options = parser.parse_args()
    with Cluster() as cluster:
        cluster.wait_replayed(60)
        servers = {"primary": cluster.primary.dsn(), "standby": cluster.standby.dsn()}
        costs = {name: measured(dsn, options.queries, options.ticks) for name, dsn in servers.items()}
    print(json.dumps(costs, indent=2))

"""Cost of many databases in one process, compared with plain threads and with one database.

    python -m tests.benchmarks.targets [DATABASES] [QUERIES]

It creates the databases on a server of its own. The output is one JSON object: seconds of a full round with
this poller's scheduler, with threads that use psycopg alone and send the same statements (`threads`), and
with threads that send only the queries, without limits, facts and replay lag (`bare`); milliseconds of CPU
per tick with one target and with all, memory in MB, and the seconds until the last good one of 200 targets
was polled, without and with 20 targets whose server does not answer.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
from psycopg.conninfo import make_conninfo

from poller.config.load_settings import load
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_pollers import TargetPollers
from poller.demo.cluster import Cluster
from poller.model.catalog import Catalog, Configuration
from poller.model.query import QueryDefinition
from poller.model.secrets import Secret
from poller.model.target import Target
from poller.postgres.pipeline import Statement
from poller.postgres.replay_lag import lag_query
from poller.postgres.server_facts import facts_query
from poller.postgres.transaction import TransactionLimits, TransactionStatements
from poller.receiver.receiver import Receiver
from poller.telemetry.logging import configure
from tests.bed.definitions import a_metric, a_query
from tests.benchmarks.figures import memory

CONNECTIONS = 8
_ROUNDS = 5


def plain(dsns: Sequence[str], queries: Sequence[QueryDefinition], *, opening: Sequence[Statement]) -> float:
    """Return the seconds of a round of threads, each of which connects, runs the queries and closes.

    The statements `opening` begin each transaction.
    """

    def poll_database(dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection, connection.pipeline():
            for statement in opening:
                for sql in (*statement.preceding, statement.sql):
                    connection.execute(sql.encode())
            cursors = []
            for query in queries:
                if len(opening) > 1:
                    connection.execute("ROLLBACK TO SAVEPOINT tick")
                cursors.append(connection.execute(query.sql.encode()))
            for cursor in cursors:
                cursor.fetchall()
            connection.execute("ROLLBACK")

    began = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(poll_database, dsns))
    return time.monotonic() - began


class Daemon:
    """The daemon's own objects for some targets, in this process."""

    def __init__(self, targets: Sequence[Target], queries: Sequence[QueryDefinition], endpoint: str) -> None:
        settings = load(
            {
                "POLLER_DATABASE_URL": "host=unused",
                "POLLER_OTLP_ENDPOINT": endpoint,
                "POLLER_TRACES": "false",
                "POLLER_SELF_METRICS": "target",
            }
        )
        self.factory = TargetFactory(settings)
        self.scheduler = PollScheduler(QueueConfig(CONNECTIONS))
        self.pollers = TargetPollers(self.factory, self.scheduler)
        self._configuration = Configuration(Catalog(tuple(queries), ()), tuple(targets))

    def round(self, until: Callable[[], bool] | None = None) -> float:
        """Return the seconds from the start until every target was polled, or until `until` holds."""
        began = time.monotonic()
        self.pollers.apply(self._configuration)
        self.scheduler.start()
        while not (until() if until else self.scheduler.ready):
            time.sleep(0.002)
        return time.monotonic() - began

    def good(self) -> int:
        """Return the number of targets with values."""
        now = time.monotonic()
        return sum(bool(poller.cycle.store.good(now)) for poller in self.pollers)

    def stop(self) -> None:
        self.scheduler.stop(self.factory.interrupt, 30.0)


def cpu_per_tick(daemon: Daemon, ticks: int) -> float:
    """Return the milliseconds of CPU of a tick that connects, round-robin over the targets."""
    daemon.pollers.apply(daemon._configuration)  # noqa: SLF001 - the benchmark's own class
    pollers = list(daemon.pollers)
    for poller in pollers[:10]:
        poller.run(poller.queries, lambda: None)
    began = time.process_time()
    for number in range(ticks):
        poller = pollers[number % len(pollers)]
        poller.run(poller.queries, lambda: None)
        poller.rest(3600.0)
    return 1e3 * (time.process_time() - began) / ticks


def main(databases: int, count: int) -> None:
    configure("text", "error")
    queries = [
        a_query(f"q{n}", f"SELECT {n} AS n", metrics=(a_metric(f"m{n}"),), interval=3600.0)
        for n in range(count)
    ]
    base = load(
        {
            "POLLER_DATABASE_URL": "host=unused",
            "POLLER_REQUIRE_STANDBY": "false",
            "POLLER_CONNECT_TIMEOUT": "2s",
        }
    ).only_target()
    with (
        Cluster(None) as cluster,
        Receiver(keep=1) as receiver,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        dsn = cluster.primary.dsn()
        with psycopg.connect(dsn, autocommit=True) as connection:
            for number in range(databases):
                connection.execute(f"CREATE DATABASE t_{number}".encode())
        dsns = [make_conninfo(dsn, dbname=f"t_{number}") for number in range(databases)]

        def targets(dsns: Sequence[str], connections: int = CONNECTIONS) -> list[Target]:
            return [
                replace(base, name=f"t_{number}", url=Secret(dsn), connections=connections)
                for number, dsn in enumerate(dsns)
            ]

        bare = [Statement("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", 30.0)]
        statements = TransactionStatements(TransactionLimits(base.lock_timeout), 30.0)
        same = [*statements.opening(facts_query(queries)), statements.own_statement(lag_query())]
        rounds: dict[str, list[float]] = {"poller": [], "threads": [], "bare": []}
        for _ in range(_ROUNDS):
            rounds["bare"].append(plain(dsns, queries, opening=bare))
            rounds["threads"].append(plain(dsns, queries, opening=same))
            daemon = Daemon(targets(dsns), queries, receiver.grpc_endpoint)
            rounds["poller"].append(daemon.round())
            assert daemon.good() == databases
            daemon.stop()
        ticks = max(databases, 200)
        cpu = {"one": [], "all": []}  # type: dict[str, list[float]]
        for _ in range(_ROUNDS):
            cpu["one"].append(cpu_per_tick(Daemon(targets(dsns[:1]), queries, receiver.grpc_endpoint), ticks))
            cpu["all"].append(cpu_per_tick(Daemon(targets(dsns), queries, receiver.grpc_endpoint), ticks))
        # Never accepted: connections wait in the backlog of the socket, or are not answered.
        hole = f"host=127.0.0.1 port={silent.getsockname()[1]} user=x dbname=x"
        late: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(_ROUNDS):
            for name, holes in (("without", 0), ("with", 20)):
                mixed = targets(dsns[:180], 1)
                # Each on a server of its own, as far as the poller can know.
                mixed = [
                    replace(item, url=Secret(f"{dsns[n]} target_session_attrs=any"))
                    for n, item in enumerate(mixed)
                ]
                black = [
                    replace(base, name=f"hole_{n}", url=Secret(f"{hole} hostaddr=127.0.0.{n + 1}"))
                    for n in range(holes)
                ]
                order = [
                    item
                    for pair in zip(mixed, [*black, *[None] * (len(mixed) - holes)], strict=True)
                    for item in pair
                    if item
                ]
                daemon = Daemon(order, queries, receiver.grpc_endpoint)
                late[name].append(daemon.round(lambda: daemon.good() == len(mixed)))  # noqa: B023 - used at once
                daemon.stop()
    median = statistics.median
    print(
        json.dumps(
            {
                "databases": databases,
                "round": {name: round(median(values), 2) for name, values in rounds.items()},
                "round_ratio": {
                    name: round(median(rounds["poller"]) / median(rounds[name]), 2)
                    for name in ("threads", "bare")
                },
                "cpu_ms_per_tick": {name: round(median(values), 2) for name, values in cpu.items()},
                "cpu_ratio": round(median(cpu["all"]) / median(cpu["one"]), 2),
                "rss_mb": round(memory(os.getpid()).rss),
                "last_good": {name: round(median(values), 2) for name, values in late.items()},
            }
        ),
        flush=True,
    )
    os._exit(0)


if __name__ == "__main__":
    main(*[int(argument) for argument in (*sys.argv[1:], *("500", "10")[len(sys.argv) - 1 :])])

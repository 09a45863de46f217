"""Several daemons with the same targets file share the servers, judged from the data points of each."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.demo.cluster import Cluster
from poller.model.shards import owner_of
from poller.receiver.receiver import Receiver
from tests.bed.polled import Json
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually

Start = Callable[..., Process]
UP = "poller.target.up"
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 61)]
"""Addresses of one real server. As far as a poller can know, each of them is a server."""


class Shard:
    """One shard: its state folder, its receiver, and its daemon."""

    def __init__(self, index: int, folder: Path, receiver: Receiver, start: Start) -> None:
        self.index = index
        self._folder = folder
        self._receiver = receiver
        self._start = start
        self.process: Process | None = None

    def start(self, count: int) -> None:
        """Start the daemon, or restart it with another number of shards as Kubernetes does."""
        self.stop(signal.SIGTERM)
        self.process = self._start(
            "run",
            env={
                "POLLER_TARGETS": str(self._folder / "targets.yaml"),
                "POLLER_QUERIES": str(self._folder / "queries.yaml"),
                "POLLER_SHARD": str(self.index),
                "POLLER_SHARDS": str(count),
                "POLLER_INSTANCE": "poller",
                "POLLER_OTLP_ENDPOINT": self._receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_LOG_FORMAT": "json",
                "POLLER_STATE_DIR": str(self._folder / f"state-{self.index}"),
            },
        )

    def stop(self, number: signal.Signals) -> None:
        """End the daemon, and forget what it exported."""
        if self.process is not None:
            self.process.send(number)
            self.process.wait()
            self.process = None
        self._receiver.clear()

    def own(self) -> dict[tuple[str, str], object]:
        """Return the newest values of its gauges by instance and metric."""
        requests = self._receiver.requests()
        points = requests[-1].points() if requests else []
        return {
            (str(point.resource["service.instance.id"]), point.metric): point.value
            for point in points
            if point.metric in (UP, "poller.shard.targets", "poller.shard.count", "database")
        }

    def polled(self) -> set[str]:
        """Return the targets that the newest export has values of, and that were reached."""
        values = self.own()
        return {name for name, metric in values if metric == "database" and values.get((name, UP)) == 1}

    def exported(self) -> set[str]:
        """Return the targets that the newest export has values of, also those of a previous run."""
        return {name for name, metric in self.own() if metric == "database"}

    def polls(self, targets: set[str]) -> bool:
        """Wait until it polls exactly these targets, and exports no other; return whether it does."""
        return eventually(lambda: self.polled() == self.exported() == targets, 120)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], None]:
    """Return a function that writes the connection strings of targets into files, and the targets file."""
    metric = {"name": "database", "unit": "{row}", "description": "Rows.", "value_column": "n"}
    sql = "SELECT oid::bigint AS n FROM pg_database WHERE datname = current_database()"
    query = {"name": "database", "sql": sql, "interval": "1s", "timeout": "900ms", "max_age": "1h"}
    (tmp_path / "queries.yaml").write_text(json.dumps({"queries": [{**query, "metrics": [metric]}]}))

    def write_targets(urls: dict[str, str]) -> None:
        targets: list[Json] = []
        for name, url in urls.items():
            (tmp_path / f"{name}.url").write_text(url)
            targets.append({"name": name, "url_file": f"{name}.url"})
        content = {"targets": targets, "defaults": {"require_standby": "false", "connect_timeout": "20s"}}
        (tmp_path / "targets.yaml").write_text(json.dumps(content))

    return write_targets


@pytest.fixture
def shards(tmp_path: Path, poller_process: Start) -> Iterator[list[Shard]]:
    receivers = [Receiver() for _ in range(4)]
    for receiver in receivers:
        receiver.start()
    yield [Shard(index, tmp_path, receiver, poller_process) for index, receiver in enumerate(receivers)]
    for receiver in receivers:
        receiver.stop()


def test_a_shard_without_targets_reports_none(shards: list[Shard], write: Callable[..., None]) -> None:
    url = "host=127.0.0.1 port=1"
    write({"only": url})
    other = shards[1 - owner_of(server_name(url), 2)]
    other.start(2)
    assert other.process is not None
    other.process.wait_for_line('polling 1 query on 0 targets.*0 of 1 target"')


@pytest.mark.timeout(600)
def test_every_server_is_polled_by_one_shard_while_shards_are_added_removed_and_killed(
    shards: list[Shard],
    write: Callable[[dict[str, str]], None],
    make_cluster: Callable[..., Cluster],
    database: Database,
) -> None:
    database.replayed()
    servers = make_servers(make_cluster, 4)
    hosts = {f"s{index}{number}": servers[index][number] for index in range(4) for number in range(3)}
    hosts |= {"primary": database.primary_dsn, "standby": database.standby_dsn}
    urls = {f"{name}-{letter}": url for name, url in hosts.items() for letter in "ab"}
    write(urls)

    def share(index: int, count: int) -> set[str]:
        """Return the targets of a shard, by the hosts and ports alone."""
        return {name for name, url in urls.items() if owner_of(server_name(url), count) == index}

    def union(daemons: list[Shard]) -> set[str]:
        return set().union(*(shard.polled() for shard in daemons))

    three, added = shards[:3], shards[3]
    before = [share(index, 3) for index in range(3)]
    assert sum(map(len, before)) == len(urls)
    for shard in three:
        shard.start(3)
    for shard in three:
        assert shard.polls(before[shard.index])
        values = shard.own()
        assert values[f"poller-{shard.index}", "poller.shard.count"] == 3
        assert values[f"poller-{shard.index}", "poller.shard.targets"] == len(before[shard.index])

    # Killed: the others do not change, and it continues.
    three[1].stop(signal.SIGKILL)
    assert three[0].polls(before[0])
    assert three[2].polls(before[2])
    three[1].start(3)
    assert three[1].polls(before[1])

    # Added: first the new shard, which polls in addition to the others, then the others one after the other.
    after = [share(index, 4) for index in range(4)]
    added.start(4)
    assert added.polls(after[3])
    assert union(three) == set(urls), "the others have not changed"
    for shard in reversed(three):
        shard.start(4)
        assert shard.polls(after[shard.index])
        assert union(shards) == set(urls)
    assert sum(len(shard.polled()) for shard in shards) == len(urls)
    for shard in three:
        assert shard.polled() == before[shard.index] - after[3], "only the targets of the new shard move"

    # Removed: first the number, and last the shard, which polls until the others have its targets.
    for shard in reversed(shards):
        shard.start(3)
        assert shard.polls(after[3] if shard is added else before[shard.index])
        assert union(shards) == set(urls)
    added.stop(signal.SIGTERM)
    assert [shard.polled() for shard in three] == before


@pytest.mark.timeout(400)
def test_a_target_moves_to_the_shard_of_the_server_that_its_file_names_now(
    shards: list[Shard],
    write: Callable[[dict[str, str]], None],
    make_cluster: Callable[..., Cluster],
    tmp_path: Path,
) -> None:
    (of_first, *_), (of_second, *_) = make_servers(make_cluster, 2)
    write({"moves": of_first, "stays-0": of_first, "stays-1": of_second})
    first, second = shards[:2]
    for shard in (first, second):
        shard.start(2)
    assert first.polls({"moves", "stays-0"})
    assert second.polls({"stays-1"})

    (tmp_path / "moves.url").write_text(of_second)
    assert first.polls({"stays-0"})
    assert second.polls({"moves", "stays-1"})
    assert second.process is not None
    second.process.wait_for_line("connection strings name other servers: 1 targets added to this shard")

    (tmp_path / "moves.url").unlink()
    assert eventually(lambda: second.own().get(("moves", UP)) == 0), "it reports that it is down"
    assert ("moves", UP) not in first.own()


def make_servers(make_cluster: Callable[..., Cluster], count: int) -> list[list[str]]:
    """Start a server on many addresses; return their connection strings by the shard that owns them."""
    server = make_cluster(primary={"listen_addresses": ",".join(ADDRESSES)}, with_standby=False).primary
    urls = [make_conninfo(server.dsn(), host=address) for address in ADDRESSES]
    by_shard: list[list[str]] = [[] for _ in range(count)]
    for url in urls:
        by_shard[owner_of(server_name(url), count)].append(url)
    return by_shard


def server_name(url: str) -> str:
    """Return the server's hosts and port as the poller compares them."""
    parts = conninfo_to_dict(url)
    return f"{parts['host']}:{parts['port']}"

"""Several daemons elect the one that polls: never two at a time, and never none for long."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from poller.demo.cluster import Cluster
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.kubernetes_api import Fault, KubernetesApiServer, kubernetes_api
from tests.bed.pgbouncer import PgBouncer
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.proxy import Proxy

Start = Callable[..., Process]
TTL = 9.0
"""Long enough for a busy machine to confirm the lock in time."""
LEADS = "this process leads now"
FOLLOWS = "another process leads"
LOST = "leadership lost"


class Contender:
    """A daemon with a receiver of its own, so that its exports can be distinguished."""

    def __init__(self, name: str, folder: Path, start: Start, election: str, **settings: str) -> None:
        self.receiver = Receiver()
        self.receiver.start()
        self.process = start(
            "run",
            env={
                "POLLER_INSTANCE": name,
                "POLLER_TARGETS": str(folder / "targets.yaml"),
                "POLLER_QUERIES": str(folder / "queries.yaml"),
                "POLLER_OTLP_ENDPOINT": self.receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_LEADER_ELECTION": election,
                "POLLER_LEADER_TTL": f"{TTL:g}s",
                "POLLER_STATE_DIR": str(folder / name),
                "POLLER_GRACE_PERIOD": "10s",
                **settings,
            },
        )

    def line(self, pattern: str, after: int = 0) -> None:
        self.process.wait_for_line(pattern, after=after)

    def points(self, metric: str = "n", instance: str = "only") -> list[Point]:
        return [p for p in self.receiver.points(metric) if p.resource.get("service.instance.id") == instance]

    def polls(self) -> bool:
        """Wait until this process exports a value that it has not exported before."""
        before = len(self.points())
        return eventually(lambda: len(self.points()) > before)

    def exports_leader(self, value: int) -> bool:
        """Wait until the newest exported value of `poller.leader` is `value`."""
        return eventually(lambda: [p.value for p in self.receiver.points("poller.leader")][-1:] == [value])

    def health(self) -> str:
        heartbeat = json.loads(self.process.health_file.read_text())
        return str(heartbeat["leader"]["state"])


def precedes(first: Contender, second: Contender) -> bool:
    """Return whether every exported value of `first` is older than every one of `second`."""
    return max(p.time_unix_nano for p in first.points()) < min(p.time_unix_nano for p in second.points())


Contend = Callable[..., Contender]


@pytest.fixture
def contend(tmp_path: Path, database: Database, poller_process: Start) -> Iterator[Contend]:
    """Start daemons that poll the same target and take part in one election."""
    metric = {"name": "n", "unit": "{row}", "description": "Rows.", "value_column": "n"}
    query = {"name": "q", "sql": "SELECT 1 AS n", "interval": "1s", "timeout": "900ms", "metrics": [metric]}
    (tmp_path / "queries.yaml").write_text(json.dumps({"queries": [query]}))
    (tmp_path / "only.url").write_text(database.standby_dsn)
    (tmp_path / "targets.yaml").write_text(
        json.dumps({"targets": [{"name": "only", "url_file": "only.url", "require_standby": "false"}]})
    )
    contenders: list[Contender] = []

    def start(name: str, election: str, **settings: str) -> Contender:
        contenders.append(Contender(name, tmp_path, poller_process, election, **settings))
        return contenders[-1]

    yield start
    for contender in contenders:
        contender.process.close()
        contender.receiver.stop()


def url(dsn: str) -> str:
    """Return a connection string as a URL, which POLLER_LEADER_ELECTION requires."""
    return "postgresql:///?" + "&".join(f"{name}={value}" for name, value in conninfo_to_dict(dsn).items())


def test_one_process_polls_and_another_continues_when_it_is_killed(
    contend: Contend, database: Database
) -> None:
    first = contend("first", url(database.standby_dsn))
    first.line(LEADS)
    assert first.polls()
    second = contend("second", url(database.standby_dsn))
    second.line(f"{FOLLOWS}.*leader=first")
    assert second.exports_leader(0)
    assert first.exports_leader(1)
    assert second.points() == []
    assert second.health() == "follower"
    first.process.send(signal.SIGKILL)
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)


def test_a_process_that_stops_frees_the_lock_after_its_last_export(
    contend: Contend, database: Database
) -> None:
    first = contend("first", url(database.primary_dsn))
    first.line(LEADS)
    second = contend("second", url(database.primary_dsn))
    second.line(FOLLOWS)
    assert first.polls()
    first.process.send(signal.SIGTERM)
    assert first.process.wait() == 0
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    assert LOST not in first.process.stderr


def test_a_frozen_leader_exports_nothing_after_it_continues(contend: Contend, database: Database) -> None:
    first = contend("first", url(database.standby_dsn))
    first.line(LEADS)
    assert first.polls()
    second = contend("second", url(database.standby_dsn))
    second.line(FOLLOWS)
    first.process.send(signal.SIGSTOP)
    second.line(LEADS)  # the server has ended the idle session
    assert second.polls()
    first.process.send(signal.SIGCONT)
    first.line(LOST)
    first.line(FOLLOWS)
    assert second.polls()
    assert precedes(first, second)
    assert first.exports_leader(0)
    assert first.health() == "follower"
    assert second.process.running


@pytest.mark.parametrize("fault", [Proxy.hang, Proxy.refuse])
def test_a_leader_without_a_link_to_the_lock_stops_before_another_one_begins(
    contend: Contend, database: Database, fault: Callable[[Proxy], None], make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(int(str(conninfo_to_dict(database.standby_dsn)["port"])))
    first = contend("first", url(proxy.dsn(database.standby_dsn)))
    first.line(LEADS)
    assert first.polls()
    second = contend("second", url(database.standby_dsn))
    second.line(FOLLOWS)
    fault(proxy)
    first.line(LOST)
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    lines = first.process.line_count()
    proxy.resume()
    first.line(FOLLOWS, after=lines)
    assert first.process.running


def test_no_process_polls_while_the_election_server_is_away(
    contend: Contend, database: Database, make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(int(str(conninfo_to_dict(database.standby_dsn)["port"])))
    proxy.refuse()
    first = contend("first", url(proxy.dsn(database.standby_dsn)))
    first.line("the leader lock does not answer")
    assert first.exports_leader(0)
    assert first.points() == []
    assert first.process.stderr.count("does not answer") == 1
    proxy.resume()
    first.line("the leader lock answers again")
    first.line(LEADS)
    assert first.polls()
    assert eventually(lambda: first.health() == "leader")


def test_a_connection_pooler_is_refused(
    contend: Contend, database: Database, make_pgbouncer: Callable[..., PgBouncer]
) -> None:
    for options in ({}, {"ignore_startup_parameters": "options"}, {"pool_mode": "session"}):
        pooler = make_pgbouncer(database.primary_dsn, **options)
        contender = contend("first", url(pooler.dsn(database.primary_dsn)))
        assert contender.process.wait() == 2
        assert "POLLER_LEADER_ELECTION: a connection pooler is in between" in contender.process.stderr


@pytest.mark.parametrize(
    ("election", "message"),
    [
        ("postgresql://poller@127.0.0.1,127.0.0.2/postgres", "names several servers"),
        ("postgresql://poller:p@ss@127.0.0.1/postgres", "its password has an @"),
    ],
)
def test_an_election_that_can_never_be_safe_or_work_ends_the_start(
    contend: Contend, election: str, message: str
) -> None:
    contender = contend("first", election)
    assert contender.process.wait() == 2
    assert f"POLLER_LEADER_ELECTION: {'' if 'names' in message else 'libpq'}" in contender.process.stderr
    assert message in contender.process.stderr


def test_a_leader_whose_session_is_ended_by_the_server_notices_it_at_once(
    contend: Contend, database: Database
) -> None:
    first = contend("first", url(database.primary_dsn), POLLER_LEADER_TTL="600s")
    first.line(LEADS)
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'obscura-poller leader first'"
    )
    first.line(f"{LOST}.*terminating connection")  # the next confirmation would be 200 s later
    assert first.process.running


def test_doctor_checks_the_lock_without_taking_it_and_names_the_leader(
    contend: Contend, database: Database, tmp_path: Path, poller_process: Start
) -> None:
    election = url(database.primary_dsn)
    settings = {
        "POLLER_TARGETS": str(tmp_path / "targets.yaml"),
        "POLLER_QUERIES": str(tmp_path / "queries.yaml"),
        "POLLER_LEADER_ELECTION": election,
    }

    def examined() -> str:
        process = poller_process("doctor", env=settings)
        process.wait()
        return next(line for line in process.stdout.splitlines() if "election" in line)

    assert re.search(
        r"postgresql:obscura-poller: the lock is free; a lock that is not confirmed becomes free after 30s",
        examined(),
    )
    contend("first", election).line(LEADS)
    assert "first leads" in examined()
    settings["POLLER_LEADER_ELECTION"] = "postgresql://127.0.0.1:1/postgres"
    assert "the lock does not answer" in examined()


def test_leadership_survives_the_promotion_of_the_election_server(
    contend: Contend, own_cluster: Cluster
) -> None:
    election = url(own_cluster.standby.dsn())
    first = contend("first", election)
    first.line(LEADS)
    second = contend("second", election)
    second.line(FOLLOWS)
    with psycopg.connect(own_cluster.standby.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")
    assert first.polls()
    assert first.polls()
    assert LOST not in first.process.stderr
    assert second.points() == []


@pytest.fixture
def api() -> Iterator[KubernetesApiServer]:
    with kubernetes_api() as server:
        yield server


LEASE = "kubernetes:obscura-poller"


def test_daemons_elect_their_leader_with_a_lease_and_a_killed_one_has_a_successor(
    contend: Contend, api: KubernetesApiServer, tmp_path: Path
) -> None:
    kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
    first = contend("first", LEASE, KUBECONFIG=kubeconfig)
    first.line(LEADS)
    assert first.polls()
    second = contend("second", LEASE, KUBECONFIG=kubeconfig)
    second.line(f"{FOLLOWS}.*leader=.?first")
    first.process.send(signal.SIGKILL)
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    second.process.send(signal.SIGTERM)
    assert second.process.wait() == 0
    assert api.leases.spec("obscura-poller")["holderIdentity"] == ""


@pytest.mark.parametrize("fault", ["hang", "unavailable", "conflict"])
def test_a_leader_stops_if_the_api_server_does_not_confirm_the_lease_and_leads_again_afterwards(
    contend: Contend, api: KubernetesApiServer, tmp_path: Path, fault: Fault
) -> None:
    first = contend("first", LEASE, KUBECONFIG=str(api.kubeconfig(tmp_path / "kubeconfig")))
    first.line(LEADS)
    assert first.polls()
    api.always = fault
    first.line(LOST)
    assert first.exports_leader(0)
    stopped = len(first.points())
    lines = first.process.line_count()
    exports = len(first.receiver.points("poller.leader"))
    assert eventually(lambda: len(first.receiver.points("poller.leader")) >= exports + 5)
    assert len(first.points()) == stopped
    api.always = None
    first.line(LEADS, after=lines)
    assert first.polls()
    assert first.process.running


def test_a_frozen_leader_of_a_lease_exports_nothing_after_it_continues(
    contend: Contend, api: KubernetesApiServer, tmp_path: Path
) -> None:
    kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
    first = contend("first", LEASE, KUBECONFIG=kubeconfig)
    first.line(LEADS)
    assert first.polls()
    second = contend("second", LEASE, KUBECONFIG=kubeconfig)
    second.line(FOLLOWS)
    first.process.send(signal.SIGSTOP)
    second.line(LEADS)
    assert second.polls()
    first.process.send(signal.SIGCONT)
    first.line(LOST)
    first.line(FOLLOWS)
    assert second.polls()
    assert precedes(first, second)

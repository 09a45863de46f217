"""Several daemons elect the one that polls: never two at a time, and never none for long."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from poller.demo.cluster import Cluster
from tests.bed.cleanup import closing_all
from tests.bed.contender import Contender, election_url, write_target
from tests.bed.kubernetes_api import Fault, KubernetesApiServer, kubernetes_api
from tests.bed.pgbouncer import PgBouncer
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.proxy import Proxy

Start = Callable[..., Process]
TTL = 9.0
"""Long enough for a busy machine to confirm the lock in time."""
LEADS = "this process leads now"
FOLLOWS = "another process holds the lock"
LOST = "leadership lost"


def exports_leader(contender: Contender, value: int) -> bool:
    """Wait until the newest exported value of `poller.leader` is `value`."""
    points = contender.receiver.points
    return eventually(lambda: [point.value for point in points("poller.leader")][-1:] == [value])


def heartbeat(contender: Contender) -> Any:
    """Wait for the first heartbeat, and return the newest one."""
    assert eventually(contender.process.health_file.exists)
    return json.loads(contender.process.health_file.read_text())


def health(contender: Contender) -> str:
    return str(heartbeat(contender)["leader"]["state"])


def precedes(first: Contender, second: Contender) -> bool:
    """Return whether every exported value of `first` is older than every one of `second`."""
    return max(p.time_unix_nano for p in first.points()) < min(p.time_unix_nano for p in second.points())


Contend = Callable[..., Contender]


@pytest.fixture
def contend(tmp_path: Path, database: Database, poller_process: Start) -> Iterator[Contend]:
    """Start daemons that poll the same target and take part in one election."""
    write_target(tmp_path, database.standby_dsn)

    def start(name: str, election: str, **settings: str) -> Contender:
        settings = {"POLLER_LEADER_TTL": f"{TTL:g}s", **settings}
        return Contender(name, tmp_path, poller_process, election, **settings)

    with closing_all(start, Contender.close) as contend:
        yield contend


def test_one_process_polls_and_another_continues_when_it_is_killed(
    contend: Contend, database: Database
) -> None:
    first = contend("first", election_url(database.standby_dsn))
    first.line(LEADS)
    assert first.polls()
    second = contend("second", election_url(database.standby_dsn))
    second.line(f"{FOLLOWS}.*leader=first")
    assert exports_leader(second, 0)
    assert exports_leader(first, 1)
    assert second.points() == []
    assert health(second) == "follower"
    first.process.send(signal.SIGKILL)
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)


def test_a_process_that_stops_frees_the_lock_after_its_last_export(
    contend: Contend, database: Database
) -> None:
    first = contend("first", election_url(database.primary_dsn))
    first.line(LEADS)
    second = contend("second", election_url(database.primary_dsn))
    second.line(FOLLOWS)
    assert first.polls()
    first.process.send(signal.SIGTERM)
    assert first.process.wait() == 0
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    assert LOST not in first.process.stderr
    assert exports_leader(first, 0), "it does not poll during its last export"


def test_a_second_process_with_the_same_name_is_noticed(contend: Contend, database: Database) -> None:
    first = contend("first", election_url(database.standby_dsn), POLLER_INSTANCE="same")
    first.line(LEADS)
    second = contend("second", election_url(database.standby_dsn), POLLER_INSTANCE="same")
    second.line("the lock is held in the name of this process.*hint=.give each process a POLLER_INSTANCE")
    assert eventually(lambda: "another same, holds the lock" in heartbeat(second)["leader"]["why"])


@pytest.mark.parametrize("fault", [Proxy.hang, Proxy.refuse])
def test_a_leader_without_a_link_to_the_lock_stops_before_another_one_begins(
    contend: Contend, database: Database, fault: Callable[[Proxy], None], make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(int(str(conninfo_to_dict(database.standby_dsn)["port"])))
    first = contend("first", election_url(proxy.dsn(database.standby_dsn)))
    first.line(LEADS)
    assert first.polls()
    second = contend("second", election_url(database.standby_dsn))
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
    first = contend("first", election_url(proxy.dsn(database.standby_dsn)))
    first.line("the leader lock does not answer")
    assert exports_leader(first, 0)
    assert first.points() == []
    assert first.process.stderr.count("does not answer") == 1
    proxy.resume()
    first.line("the leader lock answers again")
    first.line(LEADS)
    assert first.polls()
    assert eventually(lambda: health(first) == "leader")


def test_a_connection_pooler_is_refused(
    contend: Contend, database: Database, make_pgbouncer: Callable[..., PgBouncer]
) -> None:
    for options in ({}, {"ignore_startup_parameters": "options"}, {"pool_mode": "session"}):
        pooler = make_pgbouncer(database.primary_dsn, **options)
        contender = contend("first", election_url(pooler.dsn(database.primary_dsn)))
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
    first = contend("first", election_url(database.primary_dsn), POLLER_LEADER_TTL="600s")
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
    election = election_url(database.primary_dsn)
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
    assert "first holds the lock" in examined()
    settings["POLLER_LEADER_ELECTION"] = "postgresql://127.0.0.1:1/postgres"
    assert "the lock does not answer" in examined()


def test_leadership_survives_the_promotion_of_the_election_server(
    contend: Contend, own_cluster: Cluster
) -> None:
    election = election_url(own_cluster.standby.dsn())
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
    assert exports_leader(first, 0)
    stopped = len(first.points())
    lines = first.process.line_count()
    exports = len(first.receiver.points("poller.leader"))
    assert eventually(lambda: len(first.receiver.points("poller.leader")) >= exports + 5)
    assert len(first.points()) == stopped
    api.always = None
    first.line(LEADS, after=lines)
    assert first.polls()
    assert first.process.running


@pytest.mark.parametrize("kind", ["postgresql", "kubernetes"])
def test_a_frozen_leader_exports_nothing_after_it_continues(
    contend: Contend, database: Database, api: KubernetesApiServer, tmp_path: Path, kind: str
) -> None:
    election = election_url(database.standby_dsn) if kind == "postgresql" else LEASE
    settings = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))} if kind == "kubernetes" else {}
    first = contend("first", election, **settings)
    first.line(LEADS)
    assert first.polls()
    second = contend("second", election, **settings)
    second.line(FOLLOWS)
    first.process.send(signal.SIGSTOP)
    second.line(LEADS)  # the lock is free after the lease
    assert second.polls()
    first.process.send(signal.SIGCONT)
    first.line(LOST)
    first.line(FOLLOWS)
    assert "does not answer" not in first.process.stderr, "it connects again to a server that is there"
    assert second.polls()
    assert precedes(first, second)
    assert exports_leader(first, 0)
    assert health(first) == "follower"
    assert second.process.running

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
from tests.bed.candidate import Candidate, election_url, write_target
from tests.bed.cleanup import closing_all
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


def exports_leader(candidate: Candidate, value: int) -> bool:
    """Wait until the newest exported value of `poller.leader` is `value`."""
    points = candidate.receiver.points
    return eventually(lambda: [point.value for point in points("poller.leader")][-1:] == [value])


def heartbeat(candidate: Candidate) -> Any:
    """Wait for the first heartbeat, and return the newest one."""
    assert eventually(candidate.process.health_file.exists)
    return json.loads(candidate.process.health_file.read_text())


def health(candidate: Candidate) -> str:
    return str(heartbeat(candidate)["leader"]["state"])


def precedes(first: Candidate, second: Candidate) -> bool:
    """Return whether every exported value of `first` is older than every one of `second`."""
    return max(p.time_unix_nano for p in first.points()) < min(p.time_unix_nano for p in second.points())


StartCandidate = Callable[..., Candidate]


@pytest.fixture
def start_candidate(tmp_path: Path, database: Database, poller_process: Start) -> Iterator[StartCandidate]:
    """Start daemons that poll the same target and take part in one election."""
    write_target(tmp_path, database.standby_dsn)

    def start(name: str, election: str, **settings: str) -> Candidate:
        settings = {"POLLER_LEADER_TTL": f"{TTL:g}s", **settings}
        return Candidate(name, tmp_path, poller_process, election, **settings)

    with closing_all(start, Candidate.close) as start_candidate:
        yield start_candidate


def test_one_process_polls_and_another_continues_when_it_is_killed(
    start_candidate: StartCandidate, database: Database
) -> None:
    first = start_candidate("first", election_url(database.standby_dsn))
    first.line(LEADS)
    assert first.polls()
    second = start_candidate("second", election_url(database.standby_dsn))
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
    start_candidate: StartCandidate, database: Database
) -> None:
    first = start_candidate("first", election_url(database.primary_dsn))
    first.line(LEADS)
    second = start_candidate("second", election_url(database.primary_dsn))
    second.line(FOLLOWS)
    assert first.polls()
    first.process.send(signal.SIGTERM)
    assert first.process.wait() == 0
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    assert LOST not in first.process.stderr
    assert exports_leader(first, 0), "it does not poll during its last export"


def test_a_second_process_with_the_same_name_is_noticed(
    start_candidate: StartCandidate, database: Database
) -> None:
    first = start_candidate("first", election_url(database.standby_dsn), POLLER_INSTANCE="same")
    first.line(LEADS)
    second = start_candidate("second", election_url(database.standby_dsn), POLLER_INSTANCE="same")
    second.line("the lock is held in the name of this process.*hint=.give each process a POLLER_INSTANCE")
    assert eventually(lambda: "another same, holds the lock" in heartbeat(second)["leader"]["why"])


@pytest.mark.parametrize("fault", [Proxy.hang, Proxy.refuse])
def test_a_leader_without_a_link_to_the_lock_stops_before_another_one_begins(
    start_candidate: StartCandidate,
    database: Database,
    fault: Callable[[Proxy], None],
    make_proxy: Callable[[int], Proxy],
) -> None:
    proxy = make_proxy(int(str(conninfo_to_dict(database.standby_dsn)["port"])))
    first = start_candidate("first", election_url(proxy.dsn(database.standby_dsn)))
    first.line(LEADS)
    assert first.polls()
    second = start_candidate("second", election_url(database.standby_dsn))
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
    start_candidate: StartCandidate, database: Database, make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(int(str(conninfo_to_dict(database.standby_dsn)["port"])))
    proxy.refuse()
    first = start_candidate("first", election_url(proxy.dsn(database.standby_dsn)))
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
    start_candidate: StartCandidate, database: Database, make_pgbouncer: Callable[..., PgBouncer]
) -> None:
    for options in ({}, {"ignore_startup_parameters": "options"}, {"pool_mode": "session"}):
        pooler = make_pgbouncer(database.primary_dsn, **options)
        candidate = start_candidate("first", election_url(pooler.dsn(database.primary_dsn)))
        assert candidate.process.wait() == 2
        assert "POLLER_LEADER_ELECTION: a connection pooler is in between" in candidate.process.stderr


@pytest.mark.parametrize(
    ("election", "message"),
    [
        ("postgresql://poller@127.0.0.1,127.0.0.2/postgres", "names several servers"),
        ("postgresql://poller:p@ss@127.0.0.1/postgres", "its password has an @"),
    ],
)
def test_an_election_that_can_never_be_safe_or_work_ends_the_start(
    start_candidate: StartCandidate, election: str, message: str
) -> None:
    candidate = start_candidate("first", election)
    assert candidate.process.wait() == 2
    assert f"POLLER_LEADER_ELECTION: {'' if 'names' in message else 'libpq'}" in candidate.process.stderr
    assert message in candidate.process.stderr


def test_a_leader_whose_session_is_ended_by_the_server_notices_it_at_once(
    start_candidate: StartCandidate, database: Database
) -> None:
    first = start_candidate("first", election_url(database.primary_dsn), POLLER_LEADER_TTL="600s")
    first.line(LEADS)
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'obscura-poller leader first'"
    )
    first.line(f"{LOST}.*terminating connection")  # the next confirmation would be 200 s later
    assert first.process.running


def test_doctor_checks_the_lock_without_taking_it_and_names_the_leader(
    start_candidate: StartCandidate, database: Database, tmp_path: Path, poller_process: Start
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
    start_candidate("first", election).line(LEADS)
    assert "first holds the lock" in examined()
    settings["POLLER_LEADER_ELECTION"] = "postgresql://127.0.0.1:1/postgres"
    assert "the lock does not answer" in examined()


def test_leadership_survives_the_promotion_of_the_election_server(
    start_candidate: StartCandidate, own_cluster: Cluster
) -> None:
    election = election_url(own_cluster.standby.dsn())
    first = start_candidate("first", election)
    first.line(LEADS)
    second = start_candidate("second", election)
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
    start_candidate: StartCandidate, api: KubernetesApiServer, tmp_path: Path
) -> None:
    kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
    first = start_candidate("first", LEASE, KUBECONFIG=kubeconfig)
    first.line(LEADS)
    assert first.polls()
    second = start_candidate("second", LEASE, KUBECONFIG=kubeconfig)
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
    start_candidate: StartCandidate, api: KubernetesApiServer, tmp_path: Path, fault: Fault
) -> None:
    first = start_candidate("first", LEASE, KUBECONFIG=str(api.kubeconfig(tmp_path / "kubeconfig")))
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
    start_candidate: StartCandidate, database: Database, api: KubernetesApiServer, tmp_path: Path, kind: str
) -> None:
    election = election_url(database.standby_dsn) if kind == "postgresql" else LEASE
    settings = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))} if kind == "kubernetes" else {}
    first = start_candidate("first", election, **settings)
    first.line(LEADS)
    assert first.polls()
    second = start_candidate("second", election, **settings)
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

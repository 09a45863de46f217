"""After every fault of the server the poller uses a single connection, logs the fault once and recovers."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from poller.demo.cluster import Cluster
from tests.bed.polled import SKIPPED_TICK, THINGS, Polled, Spell, polling
from tests.bed.process import eventually
from tests.bed.watch import NAME

pytestmark = pytest.mark.every_version

GONE = "^replica unavailable, polls will be retried: "
BACK = "^replica available again after "


class Bed:
    """A primary and a standby that tests stop and start, and an ordinary role for the poller."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.primary = cluster.primary
        self.standby = cluster.standby
        self.gate = cluster.standby.data_dir.parent / "archive-answers"
        self.dsn = cluster.standby.dsn("polled", user="poller") + "?password=right"

    def fill(self) -> None:
        self.primary.execute("CREATE ROLE poller LOGIN PASSWORD 'right'; CREATE ROLE crowd LOGIN")
        self.make_database()
        self.require_authentication("scram-sha-256")

    def make_database(self) -> None:
        self.primary.execute("CREATE DATABASE polled")
        self.primary.execute(f"{THINGS}; GRANT SELECT ON things TO poller", "polled")
        self.cluster.wait_replayed()

    def require_authentication(self, method: str) -> None:
        """Require this authentication method from the poller's role at the next connect."""
        rules = f"host all poller 127.0.0.1/32 {method}\nhost all all 127.0.0.1/32 trust\n"
        self.standby.add_file("pg_hba.conf", f"{rules}host replication all 127.0.0.1/32 trust\n".encode())
        self.standby.execute("SELECT pg_reload_conf()")
        loaded = "SELECT auth_method FROM pg_hba_file_rules WHERE user_name = '{poller}'"
        assert self.standby.execute(loaded) == [(method,)]

    def change(self, sql: str) -> None:
        """Change the role, on the standby as well."""
        self.primary.execute(f"ALTER ROLE poller {sql}")
        self.cluster.wait_replayed()

    def disconnect(self) -> None:
        """End the poller's connection between two ticks, so that no query loses its answer."""
        ended = "count(CASE WHEN state = 'idle' THEN pg_terminate_backend(pid, 10000) END)"
        look = f"SELECT {ended}, count(*) FROM pg_stat_activity WHERE application_name = '{NAME}'"

        def done() -> bool:
            ((idle, every),) = self.standby.execute(look)
            return bool(idle == every)

        assert eventually(done)

    def restore(self) -> None:
        """Make the servers answer again after a failed test, so that it does not affect the next tests."""
        self.gate.touch()
        if self.refusal():
            self.standby.restart("immediate")
        self.change("CONNECTION LIMIT -1")

    def refusal(self) -> str:
        """Return the standby's error for a new connection; empty if it accepts the connection."""
        try:
            self.standby.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return str(error)
        return ""


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Bed]:
    if request.config.getoption("--test-dsn"):
        pytest.skip("it would stop the server of --test-dsn")
    gate = "while test ! -e ../archive-answers; do sleep 0.05; done; false"
    with Cluster(
        pg_bin,
        primary={"max_connections": "12", "max_prepared_transactions": "2"},
        standby={"max_connections": "12"},
    ) as cluster:
        bed = Bed(cluster)
        bed.gate.touch()
        cluster.standby.configure(restore_command=gate)
        cluster.standby.restart()
        bed.fill()
        yield bed


@pytest.fixture(scope="module")
def polled(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polled]:
    """A daemon for all tests: a fault in a test must not affect the next test."""
    watched = [bed.primary.dsn(), bed.standby.dsn()]
    with polling(tmp_path_factory.mktemp("queries"), bed.dsn, watched) as polled:
        yield polled


@pytest.fixture
def spell(bed: Bed, polled: Polled) -> Iterator[Spell]:
    """Starts when every query succeeds."""
    yield Spell(polled)
    bed.restore()


def test_a_standby_stops_and_starts(bed: Bed, spell: Spell) -> None:
    bed.standby.stop()
    spell.said(GONE)
    spell.counted("pace", "failed", "unavailable", times=2)
    spell.withheld()
    bed.standby.start()
    spell.healed()
    spell.recovered(GONE, ends=[BACK])


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_standby_restarts_while_a_query_runs(bed: Bed, polled: Polled, spell: Spell, mode: Any) -> None:
    polled.napping()
    bed.standby.restart(mode)
    spell.healed()
    # An immediate shutdown sends 57P02 as a warning and closes the connection.
    spell.counted("pace", "failed", "unavailable", *(["57P01"] if mode == "fast" else []))
    spell.recovered(GONE, ends=[BACK])


def test_a_backend_is_terminated_while_a_query_runs(polled: Polled, spell: Spell) -> None:
    """Only the queries that were not answered in that tick fail."""
    os.kill(polled.napping(), signal.SIGTERM)
    spell.healed()
    record = spell.said(GONE)
    assert record["db.response.status_code"] == "57P01"
    spell.recovered(GONE, ends=[BACK])
    for query in ("nap", "brief", "pace"):
        assert spell.more()[query, "failed", "unavailable", "57P01"] == 1
    assert not [key for key in spell.more() if key[:2] == ("things", "failed")]


def test_a_backend_terminated_between_two_ticks_loses_no_result(
    bed: Bed, polled: Polled, spell: Spell
) -> None:
    assert eventually(lambda: len(polled.watch.now()) == 1)
    bed.disconnect()
    spell.healed()
    spell.recovered()
    assert {key[1] for key in spell.more()} == {"ok"}


def test_a_query_is_cancelled_by_an_operator(polled: Polled, spell: Spell) -> None:
    """Only that query fails, and the failure is not reported as a timeout."""
    os.kill(polled.napping(), signal.SIGINT)
    spell.healed()
    record = spell.said("^query nap failed: canceling statement due to user request")
    assert record["db.response.status_code"] == "57014"
    spell.recovered("^query nap failed", ends=["^query nap recovered"])
    assert {key for key in spell.more() if key[1] != "ok"} == {("nap", "failed", "cancelled", "57014")}


def test_a_killed_backend_makes_the_server_restart(bed: Bed, polled: Polled, spell: Spell) -> None:
    """After SIGKILL of a backend the postmaster restarts every process, with a recovery."""
    os.kill(polled.napping(), signal.SIGKILL)
    spell.said(GONE)
    assert eventually(lambda: not bed.refusal())
    spell.healed()
    spell.counted("pace", "failed", "unavailable")
    spell.recovered(GONE, ends=[BACK])


def test_a_server_is_starting_up(bed: Bed, spell: Spell) -> None:
    """The server refuses connections until recovery reaches a consistent state."""
    bed.standby.stop()
    bed.gate.unlink()
    starting = threading.Thread(target=bed.standby.start)
    starting.start()
    try:
        assert eventually(lambda: "the database system is starting up" in bed.refusal())
        spell.said(GONE)
        spell.counted("pace", "failed", "unavailable", "57P03", times=2)
        spell.withheld()
    finally:
        bed.gate.touch()
        starting.join()
    spell.healed()
    spell.recovered(GONE, ends=[BACK])


def test_a_server_shuts_down_when_its_clients_have_disconnected(
    bed: Bed, polled: Polled, spell: Spell
) -> None:
    """An open connection works until the shutdown; a new connection is refused."""
    os.kill(bed.standby.pid, signal.SIGTERM)
    # The watch's connection delays the end of the shutdown.
    assert eventually(lambda: "the database system is shutting down" in bed.refusal())
    spell.counted("pace", "ok", times=2)
    assert not [key for key in spell.more() if key[1] != "ok"]
    os.kill(polled.after_tick(), signal.SIGTERM)
    assert "the database system is shutting down" in spell.said(GONE)["message"]
    spell.withheld()
    bed.standby.restart()
    spell.healed()
    spell.recovered(GONE, ends=[BACK])


def test_the_postmaster_is_frozen(bed: Bed, polled: Polled, spell: Spell) -> None:
    """The kernel accepts connections and no process answers: POLLER_CONNECT_TIMEOUT ends an attempt."""
    postmaster = bed.standby.pid
    backend = polled.after_tick()
    os.kill(postmaster, signal.SIGSTOP)
    try:
        os.kill(backend, signal.SIGTERM)
        record = spell.said(GONE)
        assert "timeout expired" in record["message"]
        spell.withheld()
    finally:
        os.kill(postmaster, signal.SIGCONT)
    spell.healed()
    spell.recovered(SKIPPED_TICK, GONE, ends=[BACK])


def test_a_database_is_dropped_and_created_again(bed: Bed, polled: Polled, spell: Spell) -> None:
    polled.after_tick()
    try:
        bed.primary.execute("DROP DATABASE polled WITH (FORCE)")
        bed.cluster.wait_replayed()
        record = spell.said(GONE)
        # PostgreSQL first marks the database as invalid, then removes its files, which takes time.
        expected = 'database "polled" does not exist|cannot connect to invalid database "polled"'
        assert re.search(expected, record["message"])
        spell.withheld()
    finally:
        bed.make_database()
    spell.healed()
    # On a slow machine the drop is replayed during the next tick, and ends it with a conflict.
    conflict = r"conflict with recovery|^query \w+ recovered"
    spell.recovered(GONE, ends=[BACK], besides=conflict, late=2)


def test_a_password_is_changed(bed: Bed, polled: Polled, spell: Spell) -> None:
    bed.change("PASSWORD 'other'")
    try:
        bed.disconnect()
        record = spell.said(GONE)
        assert 'password authentication failed for user "poller"' in record["message"]
        spell.withheld()
    finally:
        bed.change("PASSWORD 'right'")
    spell.healed()
    spell.recovered(GONE, ends=[BACK])
    assert "right" not in polled.process.stderr


def test_a_role_is_rejected_by_pg_hba(bed: Bed, spell: Spell) -> None:
    bed.require_authentication("reject")
    try:
        bed.disconnect()
        record = spell.said(GONE)
        assert 'pg_hba.conf rejects connection for host "127.0.0.1", user "poller"' in record["message"]
        spell.withheld()
    finally:
        bed.require_authentication("scram-sha-256")
    spell.healed()
    spell.recovered(GONE, ends=[BACK])


def test_a_server_without_a_free_connection(bed: Bed, spell: Spell) -> None:
    """At max_connections the server refuses with 53300, and the poller opens no additional connection."""
    limit = "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    slots: int = bed.standby.execute(f"SELECT {limit}")[0][0]
    with ExitStack() as others:
        clients: list[psycopg.Connection] = []

        def full() -> bool:
            """Use the free slots, including the poller's; return whether only the watch has another."""
            bed.disconnect()
            with suppress(psycopg.OperationalError):
                while True:
                    dsn = bed.standby.dsn("polled", user="crowd")
                    clients.append(others.enter_context(psycopg.connect(dsn)))
            # A refusal proves nothing: a backend that is about to exit, as that of a refused client, has a
            # slot too. So count the clients.
            return len(clients) >= slots - 1

        assert eventually(full)
        record = spell.said(GONE)
        assert re.search(
            "too many clients already|remaining connection slots are reserved", record["message"]
        )
        spell.withheld()
    spell.healed()
    spell.recovered(GONE, ends=[BACK])


def test_a_role_without_a_free_connection(bed: Bed, spell: Spell) -> None:
    """The role's CONNECTION LIMIT is reached."""
    with psycopg.connect(bed.dsn, application_name="another client"):
        bed.change("CONNECTION LIMIT 1")
        bed.disconnect()
        record = spell.said(GONE)
        assert 'too many connections for role "poller"' in record["message"]
        spell.withheld()
    spell.healed()
    spell.recovered(GONE, ends=[BACK])

"""The leader lock on real servers: one holder, the lease on the server, and what makes it unsafe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.model.errors import ConfigError
from poller.model.leader import LockError
from poller.postgres.advisory_lock import AdvisoryLock
from tests.bed.cleanup import closing_all
from tests.bed.pgbouncer import PgBouncer
from tests.bed.postgres import Database
from tests.bed.process import eventually
from tests.bed.proxy import Proxy

Make = Callable[..., AdvisoryLock]


@pytest.fixture
def make(database: Database) -> Iterator[Make]:
    def lock(identity: str, dsn: str = "", name: str = "election", lease: float = 60.0) -> AdvisoryLock:
        return AdvisoryLock(lambda: dsn or database.standby_dsn, name, identity, lease)

    with closing_all(lock, AdvisoryLock.release) as make:
        yield make


def test_one_session_holds_the_lock_and_others_see_its_name(make: Make) -> None:
    first, second = make("first"), make("second")
    assert first.acquire()
    assert first.acquire()  # again, after an answer that was lost
    assert not second.acquire()
    assert second.holder == "first"
    first.renew(10)
    first.release()
    assert eventually(second.acquire)


def test_elections_with_other_names_or_databases_are_independent(make: Make, database: Database) -> None:
    assert make("first").acquire()
    assert make("second", name="other").acquire()
    assert make("third", make_conninfo(database.primary_dsn, dbname="postgres")).acquire()


def test_looking_at_the_lock_does_not_take_it(make: Make) -> None:
    first, second = make("first"), make("second")
    first.check()
    assert first.holder == ""
    assert second.acquire()
    first.check()
    assert first.holder == "second"


def test_the_server_ends_the_session_of_a_silent_holder_after_the_lease(make: Make) -> None:
    first, second = make("first", lease=1.0), make("second")
    assert first.acquire()
    assert eventually(second.acquire)
    assert first.may_be_lost()
    with pytest.raises(LockError) as lost:
        first.renew(10)
    assert lost.value.lost


def test_the_server_does_not_give_up_the_connection_before_the_lease_ends(
    make: Make, database: Database
) -> None:
    """Its own keepalives could end the session of a leader that is cut off but still leads."""
    lock = make("first", database.primary_dsn, lease=600.0)
    assert lock.acquire()
    parts = conninfo_to_dict(database.primary_dsn)
    with psycopg.connect(database.primary_dsn, host=parts["host"]) as connection:
        query = (
            "SELECT client_addr IS NOT NULL FROM pg_stat_activity WHERE application_name LIKE '%leader first'"
        )
        assert connection.execute(query).fetchone() == (True,)
    parameters = lock._ask(  # noqa: SLF001 - only this session can show its own parameters
        "SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN"
        " ('idle_session_timeout', 'tcp_keepalives_idle', 'tcp_user_timeout')",
        10,
    )
    assert parameters["idle_session_timeout"] == "600000"
    assert int(parameters["tcp_keepalives_idle"]) > 600
    assert int(parameters["tcp_user_timeout"]) > 600_000


def test_several_hosts_are_refused_because_each_server_has_its_own_locks(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="names several servers"):
        make("first", "postgresql://a,b/postgres").acquire()
    monkeypatch.setenv("PGHOST", "a,b")
    with pytest.raises(ConfigError, match="names several servers"):
        make("first", "dbname=postgres").acquire()


def test_a_long_name_of_a_process_is_shortened(make: Make) -> None:
    first, second = make("ü" * 100), make("second")
    assert first.acquire()
    assert not second.acquire()
    assert second.holder


def test_hints_name_the_setting_of_the_election(make: Make, database: Database) -> None:
    missing = make_conninfo(database.primary_dsn, dbname="missing")
    with pytest.raises(LockError) as failure:
        make("first", missing).acquire()
    assert "POLLER_LEADER_ELECTION" in (failure.value.hint or "")
    assert "POLLER_DATABASE_URL" not in (failure.value.hint or "")


def test_a_process_that_met_a_pooler_can_lead_when_the_address_is_corrected(
    database: Database, make_pgbouncer: Callable[..., PgBouncer], tmp_path: Path
) -> None:
    pooler = make_pgbouncer(database.primary_dsn)
    file = tmp_path / "url"
    file.write_text(pooler.dsn(database.primary_dsn))
    lock = AdvisoryLock(file.read_text, "election", "first", 60.0)
    for _ in range(2):
        with pytest.raises(ConfigError, match="a connection pooler is in between"):
            lock.acquire()
    file.write_text(database.primary_dsn)
    assert lock.acquire()
    lock.release()


def test_a_lost_link_is_a_lost_lock(
    make: Make, database: Database, make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(int(str(conninfo_to_dict(database.primary_dsn)["port"])))
    lock = make("first", proxy.dsn(database.primary_dsn))
    assert lock.acquire()
    assert not lock.may_be_lost()
    proxy.hang()
    with pytest.raises(LockError) as lost:
        lock.renew(0.2)
    assert lost.value.lost
    proxy.resume()
    assert eventually(lock.acquire)

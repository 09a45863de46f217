"""The poller respects every limit that a server sets, or logs which limit ended its query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from poller.demo.cluster import Cluster
from poller.postgres.transaction import TransactionLimits
from tests.bed.polled import BUDGET_SECONDS, THINGS, USUAL, Polled, Spell, polling
from tests.bed.process import eventually

pytestmark = pytest.mark.every_version

SORT = "SELECT count(*) AS n FROM (SELECT g FROM generate_series(1, 50000) g ORDER BY g DESC OFFSET 0) t"
QUERIES = {**USUAL, "sorted": SORT}
HOLDING = {
    # The query holds its lock on the table until the tick ends.
    "things": "SELECT count(*) AS n FROM things, pg_sleep(0.25)",
    "brief": USUAL["brief"],
    "pace": USUAL["pace"],
}
LESS_OFTEN = "^query things is polled less often"


@pytest.fixture(scope="module")
def limited(cluster: Cluster) -> Iterator[Cluster]:
    """The session's servers, with a database and a role whose limits the tests change."""
    cluster.primary.execute("CREATE ROLE limited LOGIN")
    cluster.primary.execute("CREATE DATABASE limited")
    cluster.primary.execute(f"{THINGS}; GRANT SELECT ON things TO limited", "limited")
    cluster.wait_replayed()
    yield cluster
    cluster.primary.execute("DROP DATABASE limited WITH (FORCE)")
    cluster.primary.execute("DROP ROLE limited")


@pytest.fixture(scope="module")
def polled(limited: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polled]:
    """A daemon on the standby for all tests."""
    dsn = limited.standby.dsn("limited", user="limited") + "?application_name=limited"
    watched = [limited.primary.dsn(), limited.standby.dsn()]
    folder = tmp_path_factory.mktemp("queries")
    with polling(folder, dsn, watched, queries=QUERIES, name="limited") as polled:
        yield polled


@pytest.fixture
def spell(polled: Polled) -> Spell:
    return Spell(polled)


@contextmanager
def role(cluster: Cluster, *limits: str) -> Iterator[None]:
    """Set limits for the role, reconnect so that they apply, and reset them at the end."""
    try:
        for limit in limits:
            cluster.primary.execute(f"ALTER ROLE limited SET {limit}")
        _reconnect(cluster)
        yield
    finally:
        cluster.primary.execute("ALTER ROLE limited RESET ALL")
        _reconnect(cluster)


def _reconnect(cluster: Cluster) -> None:
    cluster.wait_replayed()
    # Terminate the connection between two ticks, so that no query loses its answer.
    terminate = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'limited'"
    )
    assert eventually(lambda: cluster.standby.execute(f"{terminate} AND state = 'idle'") == [(True,)])


@pytest.mark.parametrize(
    "limit",
    [
        "statement_timeout = '50ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "work_mem = '64kB'",
        "default_transaction_isolation = 'read uncommitted'",
        "default_transaction_deferrable = on",
    ],
)
def test_limits_of_the_role_that_the_poller_overrides(limited: Cluster, spell: Spell, limit: str) -> None:
    """The poller sets its limits in each transaction, so the role's limits cause no failure; work_mem makes
    queries slow."""
    with role(limited, limit):
        spell.counted("pace", "ok", times=3)
    spell.recovered()
    assert {key[1] for key in spell.more()} == {"ok"}


def test_a_transaction_timeout_of_the_role(limited: Cluster, spell: Spell) -> None:
    """It counts from BEGIN and cannot be changed in the transaction; earlier answers are stored."""
    if limited.standby.execute("SELECT current_setting('server_version_num')::int < 170000") == [(True,)]:
        pytest.skip("PostgreSQL has transaction_timeout from version 17 on")
    with role(limited, "transaction_timeout = '300ms'"):
        record = spell.said("^query nap failed: terminating connection due to transaction timeout")
        assert record["db.response.status_code"] == "25P04"
        spell.counted("nap", "failed", "timeout", "25P04")
        spell.counted("things", "ok")
    # The queries after it fail as well, and the circuit breaker may postpone a query once.
    spell.recovered(
        "^query nap failed", besides="query (brief|pace|sorted)|^query nap (is|recovered)", late=2
    )


def test_a_temporary_file_above_the_limit(limited: Cluster, polled: Polled, spell: Spell) -> None:
    """temp_file_limit: only the query that needs a larger file fails, with 53400."""
    with role(limited, "work_mem = '64kB'", "temp_file_limit = '256kB'"):
        record = spell.said("^query sorted failed: temporary file size exceeds")
        assert record["db.response.status_code"] == "53400"
        spell.counted("sorted", "failed", "rejected", "53400")
        spell.counted("pace", "ok", times=2)
        assert polled.value("sorted") == 50000, "the last good value"
    spell.recovered("^query sorted failed", ends=["^query sorted recovered"])
    assert {key[0] for key in spell.more() if key[1] != "ok"} == {"sorted"}


def test_a_lock_held_by_replay(limited: Cluster, polled: Polled, spell: Spell) -> None:
    """An ACCESS EXCLUSIVE lock of the primary: lock_timeout ends the wait of the query."""
    with psycopg.connect(limited.primary.dsn("limited")) as holder:
        holder.execute("LOCK TABLE things IN ACCESS EXCLUSIVE MODE")
        # Replay acquires the lock when a commit flushes the lock's WAL record.
        limited.primary.execute("SELECT txid_current()")
        record = spell.said("^query things failed: canceling statement due to lock timeout")
        assert record["db.response.status_code"] == "55P03"
        assert "POLLER_LOCK_TIMEOUT" in record["hint"]
        spell.counted("things", "failed", "timeout", "55P03")
        spell.counted("pace", "ok", times=2)
        assert polled.value("things") == 3
    spell.recovered("^query things failed", ends=["^query things recovered"], besides=LESS_OFTEN)


@pytest.fixture(scope="module")
def on_primary(limited: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polled]:
    """A daemon on the primary, which its settings allow."""
    dsn = limited.primary.dsn("limited", user="limited") + "?application_name=direct"
    watched = [limited.primary.dsn(), limited.standby.dsn()]
    folder = tmp_path_factory.mktemp("queries")
    with polling(
        folder, dsn, watched, queries=HOLDING, name="direct", POLLER_REQUIRE_STANDBY="false"
    ) as polled:
        yield polled


def test_a_lock_queue_on_a_primary(limited: Cluster, on_primary: Polled) -> None:
    """The poller waits in the queue for lock_timeout at most, and then blocks no other session."""
    spell = Spell(on_primary)
    dsn = limited.primary.dsn("limited")
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn) as second:
        second.execute("SELECT 1")
        holder.execute("LOCK TABLE things IN ACCESS EXCLUSIVE MODE")
        spell.said("^query things failed: canceling statement due to lock timeout")
        # It queues after or before the poller's query; in both cases soon only the holder blocks it.
        second.pgconn.send_query(b"LOCK TABLE things IN ACCESS EXCLUSIVE MODE")
        blocking = f"SELECT pg_blocking_pids({second.info.backend_pid})"
        assert eventually(lambda: limited.primary.execute(blocking) == [([holder.info.backend_pid],)])
        holder.rollback()
        assert eventually(lambda: limited.primary.execute(blocking) == [([],)]), (
            "the next session has the lock"
        )
        second.pgconn.finish()
    spell.recovered("^query things failed", ends=["^query things recovered"], besides=LESS_OFTEN)


def test_a_migration_waits_no_longer_than_the_budget_of_a_tick(limited: Cluster, on_primary: Polled) -> None:
    """Sessions that wait for the table get it when the poller's transaction ends."""
    spell = Spell(on_primary)
    longest = round((BUDGET_SECONDS + TransactionLimits(1.0).patience) * 1000)
    for _ in range(3):
        assert eventually(lambda: any("things, pg_sleep" in b.query for b in on_primary.watch.now()))
        with psycopg.connect(limited.primary.dsn("limited")) as migration:
            migration.execute(f"SET lock_timeout = {longest}")
            migration.execute("LOCK TABLE things IN ACCESS EXCLUSIVE MODE")
    spell.recovered()
    assert {key[1] for key in spell.more()} == {"ok"}

"""Through PgBouncer a tick works as on a direct connection, and has no effect on the next client."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from poller.model.result import Answer
from poller.postgres.admission import Admission
from tests.bed.definitions import a_query
from tests.bed.pgbouncer import PgBouncer
from tests.bed.postgres import Database, Site
from tests.bed.process import eventually
from tests.bed.replica import Make

Pooler = Callable[..., PgBouncer]


def outcome(answer: Answer) -> object:
    if answer.error is not None:
        return answer.error.sqlstate or answer.error.kind
    return answer.rows.values[0][0] if answer.rows else str(answer.skipped)


QUERIES = [
    a_query("first", "SELECT 1 AS n"),
    a_query("wrong", "SELECT 1 / 0 AS n"),
    a_query("late", "SELECT 1 AS n FROM pg_sleep(5)", timeout=0.2),
    a_query(
        "guessed", "SELECT 1 AS n FROM pg_sleep(5)", timeout=0.2,
        estimate={"sql": "SELECT 7 AS n", "above_cost": 1e9},
    ),
    a_query("writes", "CREATE TABLE nope ()"),
    a_query("alone", "SELECT 2 AS n", snapshot=False),
    a_query("wrong_alone", "SELECT 1 / 0 AS n", snapshot=False),
    a_query("last", "SELECT 3 AS n"),
]  # fmt: skip
ANSWERS = [b"1", "22012", "57014", b"7", "25006", b"2", "22012", b"3"]
SETTINGS = (
    "default_transaction_read_only", "statement_timeout", "lock_timeout", "transaction_isolation",
    "idle_in_transaction_session_timeout", "client_connection_check_interval", "search_path",
)  # fmt: skip


def session(dsn: str) -> dict[str, object]:
    """Return the state of the pooled session as a client sees it."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        state: dict[str, object] = {}
        for name in SETTINGS:
            row = connection.execute(f"SHOW {name}".encode()).fetchone()
            state[name] = row[0] if row else None
        row = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        state["prepared"] = row[0] if row else None
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        state["pid"] = row[0] if row else None
        return state


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": "options"}])
def test_ticks_of_every_kind_work_and_leave_nothing_in_the_pooled_session(
    database: Database, make_pgbouncer: Pooler, make_replica: Make, settings: dict[str, str]
) -> None:
    dsn = make_pgbouncer(database.standby_dsn, **settings).dsn(database.standby_dsn)
    before = session(dsn)
    replica = make_replica(dsn)
    for _ in range(3):
        assert [outcome(answer) for answer in replica.fetch(QUERIES)] == ANSWERS
        assert session(dsn) == before, "the same session with the same state"
    idle = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert database.ask_standby(idle) == [("idle",)]


def test_refused_startup_options_are_logged_once(
    database: Database, make_pgbouncer: Pooler, make_replica: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    replica = make_replica(make_pgbouncer(database.standby_dsn).dsn(database.standby_dsn))
    for _ in range(3):
        replica.fetch(QUERIES[:1])
        replica.rest(1e9)
    assert [record.getMessage() for record in caplog.records if "pooler" in record.getMessage()] == [
        "the pooler refuses startup options; connecting without them"
    ]


def test_an_interrupt_cancels_the_query_through_the_pooler(
    database: Database, make_pgbouncer: Pooler, make_replica: Make
) -> None:
    replica = make_replica(make_pgbouncer(database.standby_dsn).dsn(database.standby_dsn))
    answers: list[Answer] = []
    asking = threading.Thread(
        target=lambda: answers.extend(replica.fetch([a_query("q", "SELECT pg_sleep(60)")]))
    )
    asking.start()
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"
    assert eventually(lambda: database.ask_standby(running) == [(1,)])
    replica.interrupt()
    asking.join()
    assert [outcome(answer) for answer in answers] == ["cancelled"]
    assert eventually(lambda: database.ask_standby(running) == [(0,)])


def test_a_restart_of_the_pooler_between_two_ticks_loses_no_answer(
    database: Database, make_pgbouncer: Pooler, make_replica: Make
) -> None:
    pooler = make_pgbouncer(database.standby_dsn)
    replica = make_replica(pooler.dsn(database.standby_dsn))
    assert [outcome(answer) for answer in replica.fetch(QUERIES[:1])] == [b"1"]
    pooler.stop()
    pooler.start()
    assert [outcome(answer) for answer in replica.fetch(QUERIES[:1])] == [b"1"]
    pooler.stop()
    assert [outcome(answer) for answer in replica.fetch(QUERIES[:1])] == ["unavailable"]


def test_session_mode_works_and_statement_mode_is_reported_with_the_fix(
    database: Database, make_pgbouncer: Pooler, make_replica: Make
) -> None:
    pooled = make_pgbouncer(database.standby_dsn, pool_mode="session").dsn(database.standby_dsn)
    assert [outcome(answer) for answer in make_replica(pooled).fetch(QUERIES)] == ANSWERS
    pooled = make_pgbouncer(database.standby_dsn, pool_mode="statement").dsn(database.standby_dsn)
    (answer,) = make_replica(pooled).fetch(QUERIES[:1])
    assert answer.error is not None
    assert "transaction" in answer.error.message
    assert answer.error.hint is not None
    assert "pool_mode" in answer.error.hint


def test_the_admin_console_is_reported_with_the_fix(
    database: Database, make_pgbouncer: Pooler, make_replica: Make
) -> None:
    pooler = make_pgbouncer(database.primary_dsn)
    replica = make_replica(
        psycopg.conninfo.make_conninfo(pooler.dsn(database.primary_dsn), dbname="pgbouncer")
    )
    (answer,) = replica.fetch([a_query("a", "SELECT 1 AS n")])
    assert answer.error is not None
    assert answer.error.message == "this is PgBouncer's admin console, not a database"
    assert answer.error.hint == "name the application's database in the connection string, not pgbouncer"


def test_strict_checks_each_server_that_the_pooler_connects_to(
    site: Site, database: Database, make_pgbouncer: Pooler, make_replica: Make
) -> None:
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; CREATE TABLE t (n int); GRANT INSERT ON t TO {role}")
    try:
        pooler = make_pgbouncer(site.primary)
        replica = make_replica(
            make_conninfo(pooler.dsn(site.primary), dbname="x"), admission=Admission("false", strict=True)
        )
        for dsn, expected in ((site.primary, b"1"), (database.primary_dsn, None), (site.primary, b"1")):
            pooler.lead_to(dsn, role)
            (answer,) = replica.fetch([a_query("one", "SELECT 1 AS n")])
            assert (answer.rows and answer.rows.values[0][0]) == expected, outcome(answer)
            assert (answer.skipped is not None) == (expected is None)
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    "admission",
    [Admission("true"), Admission("false", strict=True), Admission("false", max_replay_lag=3600.0)],
)
def test_no_query_runs_on_a_server_that_was_not_checked(
    database: Database, make_pgbouncer: Pooler, make_replica: Make, admission: Admission
) -> None:
    """The pooler switches from the standby to the primary while the shared transaction runs."""
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    database.replayed()
    try:
        pooler = make_pgbouncer(database.standby_dsn)
        pooler.lead_to(database.standby_dsn, role)
        replica = make_replica(
            make_conninfo(pooler.dsn(database.standby_dsn), dbname="x"), admission=admission
        )
        sql = "SELECT pg_is_in_recovery()::int AS n"
        queries = [a_query("shared", sql), a_query("alone", sql, snapshot=False)]

        def lead(name: str) -> None:
            if name == "shared":
                pooler.lead_to(database.primary_dsn, role)

        shared, alone = replica.fetch(queries, lead)
        assert outcome(shared) == b"1"
        assert alone.error is not None, outcome(alone)
        assert "another server" in alone.error.message
        pooler.lead_to(database.standby_dsn, role)
        assert [outcome(answer) for answer in replica.fetch(queries)] == [b"1", b"1"]
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

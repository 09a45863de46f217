"""The replica runs all queries of a tick in a snapshot; a failing query affects no other query."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.demo.cluster import Cluster
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.polling.mapping import to_samples
from poller.postgres.admission import Admission
from poller.postgres.replay_lag import lag_query
from poller.postgres.replica import KEEP_CONNECTION_SECONDS, Replica
from poller.postgres.transaction import TransactionLimits
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.proxy import Proxy
from tests.bed.replica import Make, a_replica

pytestmark = pytest.mark.every_version

NAME = "obscura-poller"


def queries(*sql: str, **fields: Any) -> list[QueryDefinition]:
    return [a_query(f"q{number}", text, **fields) for number, text in enumerate(sql)]


def outcome(answer: Answer) -> object:
    """Return the rows of an answer, the SQLSTATE of its error, or the reason why it was skipped."""
    assert [answer.rows, answer.error, answer.skipped].count(None) == 2
    if answer.error is not None:
        return answer.error.sqlstate or answer.error.kind
    return str(answer.skipped) if answer.skipped else answer.rows.values if answer.rows else None


def fetch(replica: Replica, *sql: str, **fields: Any) -> list[object]:
    return [outcome(answer) for answer in replica.fetch(queries(*sql, **fields))]


def error_of(replica: Replica, sql: str, **fields: Any) -> PollError:
    (answer,) = replica.fetch(queries(sql, **fields))
    assert answer.error is not None
    return answer.error


def session_of(replica: Replica) -> psycopg.Connection:
    """Return the connection, for tests of the session."""
    assert replica.connection.is_open
    return replica.connection.connection()


def port(dsn: str) -> int:
    return int(conninfo_to_dict(dsn)["port"] or 0)


def backends(database: Database, dsn: str, name: str = NAME) -> list[tuple[str, str]]:
    execute = database.ask_standby if dsn == database.standby_dsn else database.execute
    return execute(
        "SELECT state, query FROM pg_stat_activity "
        f"WHERE application_name = '{name}' AND datname = current_database()"
    )


def value(replica: Replica, sql: str) -> tuple[object, dict[str, int]]:
    (query,) = queries(sql)
    (answer,) = replica.fetch([query])
    assert answer.rows is not None, answer.error
    mapped = to_samples(query, answer.rows, at=0.0)
    return next((sample.value for sample in mapped.samples), None), dict(mapped.rejected)


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT '-32768'::int2 AS n", -32768),
        ("SELECT 2147483647 AS n", 2147483647),
        ("SELECT 9223372036854775807 AS n", 2**63 - 1),
        ("SELECT '-9223372036854775808'::int8 AS n", -(2**63)),
        ("SELECT 9223372036854775807::numeric AS n", 2**63 - 1),
        ("SELECT 9223372036854775808 AS n", 2.0**63),
        ("SELECT 4294967295::oid AS n", 4294967295),
        ("SELECT sum(x) AS n FROM (VALUES (9007199254740992::int8), (1)) AS t(x)", 2**53 + 1),
        ("SELECT count(*) AS n FROM generate_series(1, 3)", 3),
        ("SELECT avg(x) AS n FROM (VALUES (1), (2)) AS t(x)", 1.5),
        ("SELECT 1e300::numeric AS n", 1e300),
        ("SELECT 1.10::numeric(10, 2) AS n", 1.1),
        ("SELECT '1.7976931348623157e308'::float8 AS n", sys.float_info.max),
        ("SELECT '-1.7976931348623157e308'::float8 AS n", -sys.float_info.max),
        ("SELECT '2.2250738585072014e-308'::float8 AS n", sys.float_info.min),
        ("SELECT '5e-324'::float8 AS n", 5e-324),
        ("SELECT '0.1'::float4 AS n", 0.1),
        ("SELECT '3.4028235e38'::float4 AS n", 3.4028235e38),
        ("SELECT extract(epoch FROM interval '1 hour') AS n", 3600),
        ("VALUES (1) ORDER BY 1", None),
        ("WITH w AS (SELECT 5 AS n) SELECT n FROM w", 5),
        ("SELECT 1 AS n -- a comment at the end", 1),
    ],
)
def test_numbers_equal_those_of_the_server(replica: Replica, sql: str, expected: float | None) -> None:
    if expected is None:
        assert fetch(replica, sql) == [[(b"1",)]]
    else:
        got, rejected = value(replica, sql)
        assert (got, type(got), rejected) == (expected, type(expected), {})


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT 'NaN'::float8 AS n", "nan"),
        ("SELECT 'NaN'::numeric AS n", "nan"),
        ("SELECT '-Infinity'::float4 AS n", "infinite"),
        ("SELECT 1e400::numeric AS n", "infinite"),
        ("SELECT sum(x) AS n FROM (SELECT 1 AS x WHERE false) AS t", "null"),
    ],
)
def test_values_that_are_not_numbers_are_none(replica: Replica, sql: str, reason: str) -> None:
    assert value(replica, sql) == (None, {reason: 1})


def test_an_infinite_numeric_is_none(database: Database, replica: Replica) -> None:
    ((version,),) = database.execute("SHOW server_version_num")
    if int(version) < 140000:
        pytest.skip("numeric has infinity from version 14 on")
    assert value(replica, "SELECT 'Infinity'::numeric AS n") == (None, {"infinite": 1})


def test_show_values_table_and_with_are_queries(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
    database.replayed()
    sql = ["SHOW server_encoding", "VALUES (1), (2)", "TABLE t", "WITH w AS (TABLE t) TABLE w"]
    assert fetch(replica, *sql) == [
        [(b"UTF8",)], [(b"1",), (b"2",)], [(b"7",)], [(b"7",)]
    ]  # fmt: skip


def test_rows_beyond_max_series_are_counted_and_discarded(replica: Replica) -> None:
    (answer,) = replica.fetch(queries("SELECT n FROM generate_series(1, 500000) n", max_series=10))
    assert answer.rows is not None
    assert answer.rows.values == [(str(n).encode(),) for n in range(1, 11)]
    assert answer.rows.beyond == 499_990


# --- a tick -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 200])
def test_a_tick_takes_two_round_trips_for_any_number_of_queries(
    database: Database, make_replica: Make, make_proxy: Callable[[int], Proxy], count: int
) -> None:
    proxy = make_proxy(port(database.standby_dsn))
    replica = make_replica(proxy.dsn(database.standby_dsn))
    fetch(replica, "SELECT 1 AS n")
    proxy.reset_counts()
    # The delay ensures that all statements are sent before the first answer, in any number of writes.
    proxy.delay_down = 0.3
    sql = [f"SELECT {n} AS n" for n in range(count)]
    assert fetch(replica, *sql) == [[(str(n).encode(),)] for n in range(count)]
    assert (proxy.connections, proxy.round_trips) == (0, 2)


def test_a_tick_asks_the_server_only_for_facts_that_are_needed_and_unknown(
    database: Database, make_replica: Make, make_proxy: Callable[[int], Proxy]
) -> None:
    """The sent bytes of the second and third tick of a connection are counted."""
    proxy = make_proxy(port(database.standby_dsn))

    def sent(**arguments: Any) -> tuple[int, int]:
        replica = make_replica(proxy.dsn(database.standby_dsn), **arguments)
        counts = []
        for _ in range(3):
            proxy.reset_counts()
            assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]
            counts.append(proxy.bytes_up)
        return counts[1], counts[2]

    with_lag = sent()
    assert with_lag[0] == with_lag[1]
    without = sent(admission=Admission("false", report_lag=False))
    assert without[0] == without[1]
    look = len(lag_query(brief=True))
    assert look < with_lag[0] - without[0] < look + 200
    assert sent(admission=Admission("false", 60.0, report_lag=False)) == with_lag


def test_a_privilege_granted_later_is_noticed_on_an_open_connection(
    database: Database, make_replica: Make
) -> None:
    """In PostgreSQL, a GRANT takes effect in open sessions."""
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        admission = Admission("false", strict=True, excess_seconds=0.0)
        replica = make_replica(make_conninfo(database.primary_dsn, user=role), admission=admission)
        pid = fetch(replica, "SELECT pg_backend_pid() AS n")
        assert fetch(replica, "SELECT pg_backend_pid() AS n") == pid
        database.execute(f"ALTER ROLE {role} SUPERUSER")
        (answer,) = replica.fetch(queries("SELECT 1 AS n"))
        assert answer.skipped is not None
        assert answer.skipped.reason == "excess_privilege"
        database.execute(f"ALTER ROLE {role} NOSUPERUSER")
        assert fetch(replica, "SELECT pg_backend_pid() AS n") == pid
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_failing_query_does_not_affect_the_other_results(replica: Replica) -> None:
    before = queries(
        "SELECT 1 AS n", "SELECT 1/0 AS n", "SELECT 2 AS n", "SELECT nope", "SELECT 3 AS n", "SELEC",
        "TABLE nope",
    )  # fmt: skip
    late = a_query("late", "SELECT pg_sleep(20)", timeout=0.5)
    after = [a_query(f"a{n}", sql) for n, sql in enumerate(["SELECT 4", "SELECT 1; SELECT 2", "SELECT 5"])]
    assert [outcome(answer) for answer in replica.fetch([*before, late, *after])] == [
        [(b"1",)], "22012", [(b"2",)], "42703", [(b"3",)], "42601",
        "42P01", "57014", [(b"4",)], "42601", [(b"5",)],
    ]  # fmt: skip


def test_a_query_that_takes_too_long_is_cancelled_by_its_own_timeout(replica: Replica) -> None:
    quick, slow = (
        a_query("quick", "SELECT pg_sleep(20)", timeout=0.2),
        a_query("slow", "SELECT pg_sleep(0.6), 1 AS n"),
    )
    first, second = replica.fetch([quick, slow])
    assert first.error is not None
    assert (first.error.kind, first.error.sqlstate) == ("timeout", "57014")
    assert second.rows is not None, (
        "its own timeout is the default, and that of the first query does not remain"
    )


def test_a_lock_on_the_primary_fails_only_the_query_that_needs_it(
    database: Database, make_replica: Make
) -> None:

    database.execute("CREATE TABLE locked (n int); CREATE TABLE free (n int)")
    database.replayed()
    with psycopg.connect(database.primary_dsn) as holder:
        holder.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE; SELECT pg_current_xact_id()")
        database.execute("SELECT pg_switch_wal()")  # so that the lock's record is streamed without a commit
        database.execute("CREATE TABLE later ()")
        database.replayed()
        for dsn in (database.primary_dsn, database.standby_dsn):
            replica = make_replica(dsn, limits=TransactionLimits(0.2))
            count = "SELECT count(*) AS n FROM "
            assert fetch(replica, count + "free", count + "locked", count + "free") == [
                [(b"0",)],
                "55P03",
                [(b"0",)],
            ]
            error = error_of(replica, count + "locked")
            assert error.kind == "timeout"
            assert error.hint is not None
            assert "POLLER_LOCK_TIMEOUT" in error.hint


def test_all_queries_of_a_tick_see_one_snapshot(database: Database, make_replica: Make) -> None:
    database.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    database.replayed()
    for dsn in (database.primary_dsn, database.standby_dsn):
        replica = make_replica(dsn)

        def write(name: str) -> None:
            if name == "q0":
                database.execute("INSERT INTO t VALUES (2)")
                database.replayed()

        before, _, after = replica.fetch(
            queries("SELECT count(*) AS n FROM t", "SELECT pg_sleep(1.5)", "SELECT count(*) AS n FROM t"),
            write,
        )
        assert outcome(after) == outcome(before)
        assert fetch(replica, "SELECT count(*) AS n FROM t") != [outcome(before)], (
            "the next tick sees the new row"
        )


def test_a_tick_whose_listener_raised_does_not_pass_its_snapshot_to_the_next(
    database: Database, make_replica: Make
) -> None:
    def broken(name: str) -> None:
        raise KeyError(name)

    database.execute("CREATE TABLE t (n int)")
    replica = make_replica(database.primary_dsn)
    with pytest.raises(KeyError):
        replica.fetch(queries("SELECT 7 AS n", "SELECT pg_sleep(30)"), broken)
    database.execute("INSERT INTO t VALUES (1)")
    assert fetch(replica, "SELECT count(*) AS n FROM t") == [[(b"1",)]]
    assert eventually(lambda: len(backends(database, database.primary_dsn)) == 1)


SETTINGS = {
    "transaction_isolation": "repeatable read",
    "transaction_read_only": "on",
    "default_transaction_read_only": "on",
    "statement_timeout": "7s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "10s",
    "client_connection_check_interval": "2s",
    "application_name": NAME,
    "client_encoding": "UTF8",
}


def test_the_limits_apply_inside_the_tick(replica: Replica) -> None:
    values = fetch(replica, *[f"SHOW {name}" for name in SETTINGS], timeout=7)
    assert dict(zip(SETTINGS, values, strict=True)) == {
        name: [(setting.encode(),)] for name, setting in SETTINGS.items()
    }


def test_nothing_of_a_tick_outlives_its_transaction(replica: Replica) -> None:
    poisons = [f"SELECT set_config('{name}', '0', false)" for name in ("statement_timeout", "lock_timeout")]
    fetch(replica, "SELECT set_config('default_transaction_read_only', 'off', false)", *poisons)
    connection = session_of(replica)
    settings = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in SETTINGS}
    assert settings["statement_timeout"] == ("0",)
    assert settings["lock_timeout"] == ("0",)
    assert settings["idle_in_transaction_session_timeout"] == ("0",)
    assert settings["client_connection_check_interval"] == ("0",)
    assert settings["transaction_isolation"] == ("read committed",)
    assert settings["default_transaction_read_only"] == ("on",)


@pytest.mark.parametrize("snapshot", [True, False])
def test_settings_and_notifications_of_the_last_query_are_rolled_back(
    database: Database, make_replica: Make, *, snapshot: bool
) -> None:
    replica = make_replica(database.primary_dsn)
    with psycopg.connect(database.primary_dsn, autocommit=True) as listener:
        listener.execute("LISTEN channel")
        for name, value in (("default_transaction_read_only", "off"), ("work_mem", "99MB")):
            fetch(replica, f"SELECT set_config('{name}', '{value}', false)", snapshot=snapshot)
        fetch(replica, "SELECT pg_notify('channel', 'ours')", snapshot=snapshot)
        listener.execute("NOTIFY channel, 'the end'")
        assert [notification.payload for notification in listener.notifies(timeout=30, stop_after=1)] == [
            "the end"
        ]
    settings = [session_of(replica).execute(f"SHOW {name}".encode()).fetchone() for name in SETTINGS]
    ((work_mem,),) = session_of(replica).execute("SHOW work_mem").fetchall()
    assert dict(zip(SETTINGS, settings, strict=True))["default_transaction_read_only"] == ("on",)
    assert work_mem != "99MB"


def test_a_query_cannot_remove_the_limits_of_the_next(replica: Replica) -> None:
    loosened = "SELECT set_config('lock_timeout', '0', {0}), set_config('statement_timeout', '0', {0})"
    sql = [loosened.format("false"), "SHOW lock_timeout", loosened.format("true"), "SHOW statement_timeout"]
    answers = fetch(replica, *sql, timeout=9)
    assert (answers[1], answers[3]) == ([(b"1s",)], [(b"9s",)])


def test_options_of_the_user_are_combined_with_those_of_the_poller(
    database: Database, make_replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c search_path=from_env")
    replica = make_replica(database.standby_dsn)
    assert fetch(replica, "SHOW search_path", "SHOW default_transaction_read_only") == [
        [(b"from_env",)],
        [(b"on",)],
    ]
    replica = make_replica(
        make_conninfo(database.standby_dsn, options="-c search_path=mine", application_name="me")
    )
    values = fetch(replica, *[f"SHOW {name}" for name in ("search_path", "application_name")])
    assert values == [[(b"mine",)], [(b"me",)]]
    assert fetch(replica, "SHOW default_transaction_read_only") == [[(b"on",)]]


def test_each_query_has_its_own_duration(replica: Replica) -> None:
    before = time.time()
    first, slow, last = replica.fetch(queries("SELECT 1 AS n", "SELECT pg_sleep(0.5)", "SELECT 2 AS n"))
    # Measured when answers are read, so a busy machine may add a part of a duration to the previous query.
    assert first.duration + slow.duration >= 0.5
    assert slow.duration > last.duration
    assert first.at == slow.at == last.at
    assert before <= first.at <= time.time()


# --- writing ------------------------------------------------------------------------------------------

WRITES = {
    "INSERT INTO t VALUES (2)": "25006",
    "UPDATE t SET n = 3": "25006",
    "DELETE FROM t": "25006",
    "WITH w AS (INSERT INTO t VALUES (2) RETURNING n) SELECT * FROM w": "25006",
    "SELECT write()": "25006",
    "SELECT n INTO u FROM t": "25006",
    "SELECT nextval('s')": "25006",
    "SELECT setval('s', 50)": "25006",
    "SELECT * FROM t FOR UPDATE": "25006",
    "CREATE TABLE u ()": "25006",
    "TRUNCATE t": "25006",
    "DO $$BEGIN INSERT INTO t VALUES (2); END$$": "25006",
    "SELECT 1; COMMIT; CREATE TABLE u ()": "42601",
    "COMMIT; CREATE TABLE u ()": "42601",
    "SET TRANSACTION READ WRITE": "25001",
    "SELECT set_config('transaction_read_only', 'off', false)": "25001",
}


@pytest.fixture
def written(database: Database) -> Database:
    database.execute(
        """
        CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE SEQUENCE s;
        CREATE FUNCTION write() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (2) RETURNING n'
        """
    )
    return database


def untouched(database: Database) -> bool:
    return database.execute("SELECT array_agg(n), to_regclass('u') IS NULL FROM t") == [([1], True)] and (
        database.execute("SELECT last_value, is_called FROM s") == [(1, False)]
    )


@pytest.mark.parametrize("sql", WRITES)
def test_a_query_that_writes_changes_nothing_on_a_primary(
    written: Database, make_replica: Make, sql: str
) -> None:
    replica = make_replica(written.primary_dsn)
    assert fetch(replica, "SELECT n FROM t", sql, "SELECT n FROM t") == [[(b"1",)], WRITES[sql], [(b"1",)]]
    assert untouched(written)


@pytest.mark.parametrize(
    "end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK TO SAVEPOINT tick", "RELEASE SAVEPOINT tick"]
)
def test_a_query_that_ends_the_transaction_does_not_lift_the_limits_of_the_next(
    written: Database, make_replica: Make, end: str
) -> None:
    replica = make_replica(written.primary_dsn)
    writes = ["INSERT INTO t VALUES (2)", "SELECT write()", "SELECT nextval('s')", "CREATE TABLE u ()"]
    fetch(
        replica,
        "SELECT n FROM t",
        end,
        *writes,
        "BEGIN READ WRITE",
        *writes,
        "SELECT pg_sleep(40)",
        timeout=1,
    )
    assert eventually(lambda: all(state == "idle" for state, _ in backends(written, written.primary_dsn)))
    assert untouched(written)
    assert fetch(replica, "SELECT n FROM t") == [[(b"1",)]], "the next tick succeeds"


def test_each_query_has_its_own_timeout_independent_of_the_others(replica: Replica) -> None:
    show = "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"
    wild = "SELECT set_config('statement_timeout', '0', false)"
    definitions = [
        a_query(f"q{number}", sql, timeout=timeout)
        for number, (sql, timeout) in enumerate(
            [(show, 9), (show, 5), (wild, 5), (show, 5), ("SELECT 1/0", 7), (show, 5), (show, 7)]
        )
    ]
    answers = replica.fetch(definitions)
    values = [answer.rows.values[0][0] if answer.rows else None for answer in answers]
    assert values == [b"9000", b"5000", b"0", b"5000", None, b"5000", b"7000"]


# --- requirements -------------------------------------------------------------------------------------


def test_a_query_with_an_unmet_requirement_is_skipped_without_an_error_on_the_server(
    database: Database, make_replica: Make, cluster: Cluster
) -> None:
    database.execute("CREATE TABLE users (id int)")
    database.replayed()
    marker = f"never_{database.name}"
    needs: list[dict[str, Any]] = [
        {"role": "primary"}, {"server_version": ">=99"}, {"extensions": [marker]}, {"columns": {marker: []}},
        {"columns": {"users": ["id", "size"]}}, {"columns": {f"a.b.{marker}": []}},
    ]  # fmt: skip
    definitions = [
        a_query(f"q{n}", f"SELECT {marker}", requires=requires) for n, requires in enumerate(needs)
    ]
    definitions.append(
        a_query(
            "met", "SELECT id AS n FROM users", requires={"role": "standby", "columns": {"users": ["id"]}}
        )
    )
    before = cluster.standby.log_path.stat().st_size
    outcomes = {
        answer.query.name: outcome(answer) for answer in make_replica(database.standby_dsn).fetch(definitions)
    }
    reasons = [outcomes[f"q{n}"] for n in range(len(needs))]
    assert reasons[0] == "needs a primary, this server is a standby"
    assert str(reasons[1]).startswith("needs server version >=99, this server has ")
    assert reasons[2:] == [
        f"extension {marker} is not installed",
        f"relation {marker} does not exist",
        "column users.size does not exist",
        f"relation a.b.{marker} does not exist",
    ]
    assert outcomes["met"] == []
    with cluster.standby.log_path.open() as log:
        log.seek(before)
        assert "ERROR" not in log.read()


def test_a_schema_without_usage_affects_only_its_own_query(database: Database, make_replica: Make) -> None:
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA private; CREATE TABLE private.t (n int)")
    database.replayed()
    try:
        replica = make_replica(make_conninfo(database.standby_dsn, user=role))
        barred = a_query("barred", "SELECT n FROM private.t", requires={"columns": {"private.t": ["n"]}})
        assert [outcome(answer) for answer in replica.fetch([barred, *queries("SELECT 1 AS n")])] == [
            "column private.t.n may not be read; GRANT SELECT on it, and USAGE on its schema",
            [(b"1",)],
        ]
        replica.rest(1e9)
    finally:
        database.execute(f"DROP ROLE {role}")


def test_a_tick_of_only_skipped_queries_is_answered(replica: Replica) -> None:
    (answer,) = replica.fetch(queries("SELECT 1 AS n", requires={"columns": {"nowhere": []}}))
    assert (str(answer.skipped), answer.duration) == ("relation nowhere does not exist", 0.0)
    assert replica.fetch([]) == []


# --- interruption -------------------------------------------------------------------------------------


def test_an_interrupted_run_is_cancelled_completely_and_leaves_no_backend(
    database: Database, make_replica: Make
) -> None:
    # Only the cancel request can end the query.
    replica = make_replica(database.standby_dsn, limits=TransactionLimits(1.0, connection_check=100.0))
    sleeps = [f"SELECT pg_sleep({n})" for n in (30, 31, 32)]
    answers: list[Answer] = []
    answered: list[str] = []
    asking = threading.Thread(
        target=lambda: answers.extend(replica.fetch(queries("SELECT 1 AS n", *sleeps), answered.append))
    )
    asking.start()
    assert eventually(lambda: ("active", "SELECT pg_sleep(30)") in backends(database, database.standby_dsn))
    assert eventually(lambda: answered == ["q0"])
    replica.interrupt()
    asking.join()
    assert [outcome(answer) for answer in answers] == [[(b"1",)], "cancelled", "cancelled", "cancelled"]
    assert eventually(lambda: backends(database, database.standby_dsn) == [])
    assert fetch(replica, "SELECT 1 AS n") == ["cancelled"], "no query is started"
    assert backends(database, database.standby_dsn) == []


def test_an_interrupt_before_the_first_tick_opens_no_connection(replica: Replica) -> None:
    replica.interrupt()
    assert fetch(replica, "SELECT 1 AS n", "SELECT 2 AS n") == ["cancelled", "cancelled"]
    assert not replica.connection.is_open


def test_an_interrupt_after_close_has_no_effect(database: Database) -> None:
    replica = a_replica(database.standby_dsn)
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]
    replica.close()
    replica.interrupt()
    replica.close()


def test_the_server_ends_the_query_of_a_poller_that_was_killed(
    database: Database, start_process: Callable[..., Process]
) -> None:
    program = (
        "import sys; from tests.bed.definitions import a_query; from tests.bed.replica import a_replica; "
        "replica = a_replica(sys.argv[1]); "
        "replica.fetch([a_query('q', 'SELECT pg_sleep(60)', interval=300, timeout=100)])"
    )
    process = start_process([sys.executable, "-c", program, database.standby_dsn])
    assert eventually(lambda: ("active", "SELECT pg_sleep(60)") in backends(database, database.standby_dsn))
    process.send(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: backends(database, database.standby_dsn) == [], 30.0)


# --- reuse and loss of the connection -----------------------------------------------------------------


def test_an_open_connection_is_reused_and_rest_closes_it_before_a_long_pause(
    database: Database, replica: Replica
) -> None:
    pid = fetch(replica, "SELECT pg_backend_pid() AS n")
    replica.rest(KEEP_CONNECTION_SECONDS)
    assert fetch(replica, "SELECT pg_backend_pid() AS n") == pid
    replica.rest(KEEP_CONNECTION_SECONDS + 1)
    assert eventually(lambda: backends(database, database.standby_dsn) == [])
    assert fetch(replica, "SELECT pg_backend_pid() AS n") != pid


def test_a_connection_that_failed_between_two_ticks_loses_no_answer(
    database: Database, replica: Replica
) -> None:
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]
    database.ask_standby(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'"
    )
    assert eventually(lambda: backends(database, database.standby_dsn) == [])
    assert fetch(replica, "SELECT 1 AS n", "SELECT 2 AS n") == [[(b"1",)], [(b"2",)]]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_restart_between_two_ticks_loses_no_answer(
    own_cluster: Cluster, make_replica: Make, mode: Any
) -> None:
    replica = make_replica(own_cluster.standby.dsn())
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]
    own_cluster.standby.restart(mode)
    assert fetch(replica, "SELECT 1 AS n", "SELECT 2 AS n") == [[(b"1",)], [(b"2",)]]
    own_cluster.standby.stop()
    assert fetch(replica, "SELECT 1 AS n") == ["unavailable"]
    own_cluster.standby.start()
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]


def test_a_backend_terminated_during_a_tick_is_reported_and_the_next_tick_succeeds(
    database: Database, replica: Replica
) -> None:
    def terminate() -> None:
        assert eventually(
            lambda: ("active", "SELECT pg_sleep(30)") in backends(database, database.standby_dsn)
        )
        database.ask_standby(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'"
        )

    killer = threading.Thread(target=terminate)
    killer.start()
    first, *others = replica.fetch(queries("SELECT 1 AS n", "SELECT pg_sleep(30)", "SELECT 2 AS n"))
    killer.join()
    assert outcome(first) == [(b"1",)]
    assert [(answer.error.kind, answer.error.sqlstate) for answer in others if answer.error] == [
        ("unavailable", "57P01")
    ] * 2
    assert others[1].duration == 0.0, "it was not run"
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]


def test_a_connection_cut_during_a_tick_is_unavailable_and_the_next_tick_succeeds(
    database: Database, make_replica: Make, make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(port(database.standby_dsn))
    replica = make_replica(proxy.dsn(database.standby_dsn))
    definitions = queries("SELECT 1 AS n", "SELECT pg_sleep(30)", "SELECT 2 AS n")
    answers = replica.fetch(definitions, lambda name: proxy.cut() if name == "q0" else None)
    assert [outcome(answer) for answer in answers] == [[(b"1",)], "unavailable", "unavailable"]
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]


def before_a_hang(sql: str) -> list[QueryDefinition]:
    """Return a query that succeeds even on a machine that stalls, and two with a short timeout."""
    return [
        a_query("q0"),
        *(a_query(f"q{n}", text, timeout=0.5) for n, text in enumerate([sql, "SELECT 2"], 1)),
    ]


def test_a_server_that_hangs_is_abandoned_after_the_patience_and_the_connection_closed(
    database: Database, make_replica: Make, make_proxy: Callable[[int], Proxy]
) -> None:
    proxy = make_proxy(port(database.standby_dsn))
    limits = TransactionLimits(1.0, patience=0.5)
    replica = make_replica(proxy.dsn(database.standby_dsn), limits=limits)
    definitions = before_a_hang("SELECT pg_sleep(0.3)")
    first, *others = replica.fetch(definitions, lambda name: proxy.hang() if name == "q0" else None)
    assert outcome(first) == [(b"1",)]
    late = [answer.error for answer in others]
    assert [error.kind for error in late if error] == ["unavailable"] * 2
    assert late[0] is not None
    assert late[0].hint is not None
    assert not replica.connection.is_open
    proxy.resume()
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]


def test_a_frozen_backend_is_abandoned_after_the_patience_and_the_next_tick_succeeds(
    own_cluster: Cluster, make_replica: Make
) -> None:
    replica = make_replica(own_cluster.standby.dsn(), limits=TransactionLimits(1.0, patience=0.5))
    (answer,) = replica.fetch(queries("SELECT pg_backend_pid() AS n"))
    assert answer.rows is not None
    pid = int(answer.rows.values[0][0] or b"0")
    stat = Path(f"/proc/{pid}/stat")

    def freeze(name: str) -> None:
        if name == "q0":
            os.kill(pid, signal.SIGSTOP)
            assert eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] in "Tt")

    try:
        definitions = before_a_hang("SELECT pg_sleep(0.4)")
        answers = [outcome(answer) for answer in replica.fetch(definitions, freeze)]
        assert answers == [[(b"1",)], "unavailable", "unavailable"]
        assert not replica.connection.is_open
        assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]
    finally:
        os.kill(pid, signal.SIGCONT)


# --- no connection ------------------------------------------------------------------------------------


def failure(replica: Replica) -> PollError:
    (error,) = {answer.error for answer in replica.fetch(queries("SELECT 1 AS n", "SELECT 2 AS n"))}
    assert error is not None
    return error


def no_secret(error: BaseException) -> bool:
    """Return whether neither the error nor an error in its chain contains the password."""
    chain = [error, *filter(None, [error.__cause__, error.__context__])]
    return not any("hunter" in text for e in chain for text in (str(e), repr(e), repr(vars(e))))


def test_a_refused_connection_is_unavailable(make_replica: Make, make_proxy: Callable[[int], Proxy]) -> None:
    proxy = make_proxy(1)
    proxy.refuse()
    error = failure(make_replica(f"postgresql://u:hunter@127.0.0.1:{proxy.port}/x"))
    assert (error.kind, error.sqlstate) == ("unavailable", None)
    assert "Connection refused" in error.message
    assert error.hint == "start the server, or correct host and port (and its listen_addresses)"
    assert "\n" not in error.message
    assert no_secret(error)


def test_a_failure_leaves_no_reference_cycle(make_replica: Make, make_proxy: Callable[[int], Proxy]) -> None:
    """Python's garbage collector rarely runs in the daemon, so a reference cycle would stay in memory."""
    proxy = make_proxy(1)
    proxy.refuse()
    replica = make_replica(f"postgresql://u@127.0.0.1:{proxy.port}/x")

    def errors() -> int:
        return sum(issubclass(type(item), psycopg.Error | PollError) for item in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = errors()
        error = failure(replica)
        assert errors() == before + 1
        del error
        assert errors() == before
    finally:
        gc.enable()


def test_an_unknown_database_or_role_is_unavailable_with_the_servers_message(
    database: Database, make_replica: Make
) -> None:
    for changed, words in (
        ({"dbname": "nowhere"}, '"nowhere" does not exist'),
        ({"user": "who"}, '"who" does not exist'),
    ):
        error = failure(make_replica(make_conninfo(database.standby_dsn, password="hunter", **changed)))
        assert error.kind == "unavailable"
        assert words in error.message
        assert no_secret(error)


def test_a_wrong_password_is_unavailable_and_not_shown(
    make_cluster: Callable[..., Cluster], make_replica: Make
) -> None:
    cluster = make_cluster()
    cluster.primary.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    cluster.wait_replayed()
    cluster.standby.add_file(
        "pg_hba.conf", b"host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
    )
    cluster.standby.execute("SELECT pg_reload_conf()")
    passwords = ["right", "hunter"]
    dsn = cluster.standby.dsn(user="guarded")
    replica = make_replica(lambda: make_conninfo(dsn, password=passwords[0]))
    assert eventually(
        lambda: failure_or_none(make_replica(make_conninfo(dsn, password="hunter"))) is not None
    )
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]]
    replica.rest(1e9)
    passwords.reverse()
    error = failure(replica)
    assert error.kind == "unavailable"
    assert 'password authentication failed for user "guarded"' in error.message
    assert no_secret(error)
    passwords.reverse()
    assert fetch(replica, "SELECT 1 AS n") == [[(b"1",)]], "the password is read at each connect"


def failure_or_none(replica: Replica) -> PollError | None:
    (answer,) = replica.fetch(queries("SELECT 1 AS n"))
    return answer.error


@pytest.mark.parametrize(
    ("conninfo", "names"),
    {
        "postgresql://u:hunter2@127.0.0.1/x?pool_max_conns=10": "parameter pool_max_conns",
        "postgresql://127.0.0.1/x?sslmode=disable&pgbouncer=true&schema=a": "parameters pgbouncer, schema",
        "postgresql://u@[::1]/x?SSLMODE=disable": "parameter SSLMODE",
    }.items(),
)
def test_a_parameter_of_another_driver_is_named(make_replica: Make, conninfo: str, names: str) -> None:
    error = failure(make_replica(conninfo))
    single = names.startswith("parameter ")
    verb, them = ("belongs", "it") if single else ("belong", "them")
    assert error.message == (
        f"libpq does not know the {names} of the connection string, which {verb} to another driver"
    )
    assert error.hint == f"remove {them}; a setting of the server is written options=-c%20NAME=VALUE"
    assert no_secret(error)


@pytest.mark.parametrize(
    ("conninfo", "fault"),
    {
        "postgresql+asyncpg://u:hunter2@h/x": "it begins with postgresql+asyncpg://",
        "jdbc:postgresql://h/x?password=hunter2": "it begins with jdbc:postgresql://",
        "mysql://u:hunter2@h/x": "it begins with mysql://",
        "host=h passwd=hunter2": "does not know the keyword passwd",
        "127.0.0.1:55432/shop": "it has no scheme",
        "postgresql://u:hunter@hunter2@h/x": "its password has an @ or / that is not escaped",
        "postgresql://u:hunter/2@127.0.0.1/x": "its password has an @ or / that is not escaped",
    }.items(),
)
def test_an_invalid_part_of_the_connection_string_is_named_unless_it_may_be_secret(
    make_replica: Make, conninfo: str, fault: str
) -> None:
    error = failure(make_replica(conninfo))
    assert fault in error.message
    assert no_secret(error)


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://u:hunter?hunter2=x",
        "host=127.0.0.1 hunter2=x",
        "postgresql://u:hunter%zz@127.0.0.1/x",
        "host=127.0.0.1 password=my hunter2",
        "hunter2",
        "postgresql://u:p@127.0.0.1:hunter/x",
    ],
)
def test_an_invalid_connection_string_is_not_repeated(make_replica: Make, conninfo: str) -> None:
    error = failure(make_replica(conninfo))
    assert (error.kind, error.message) == ("unavailable", "libpq does not understand the connection string")
    assert error.hint is not None
    assert no_secret(error)


def test_a_password_file_that_cannot_be_read_is_unavailable(make_replica: Make, tmp_path: Path) -> None:
    error = failure(make_replica((tmp_path / "gone").read_text))
    assert error.kind == "unavailable"
    assert "No such file" in error.message

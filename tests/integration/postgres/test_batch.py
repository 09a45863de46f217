"""A tick stays within its budget, with estimates for expensive queries and queries outside the snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.model.query import QueryDefinition
from poller.model.result import Answer, Skip, own_failure
from poller.polling.poll import to_result
from poller.postgres.admission import Admission
from poller.postgres.replica import Replica
from poller.postgres.server_tracker import ServerInfo
from poller.postgres.transaction import TransactionLimits, TransactionStatements
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.proxy import Proxy
from tests.bed.replica import Make

pytestmark = pytest.mark.every_version

CHEAP, EXPENSIVE = "SELECT -1 AS n", "SELECT x AS n FROM generate_series(10000, 20000) AS a(x)"
"""The start-up cost of EXPENSIVE is 0, so that only its total cost is above the limits in these tests."""


def outcome(answer: Answer) -> tuple[object, str | None]:
    """Return the value, error kind or skip reason of an answer, and the reason for an estimate."""
    if answer.skipped is not None:
        return f"skipped({answer.skipped.reason})", answer.estimated
    if answer.error is not None:
        return answer.error.kind, answer.estimated
    assert answer.rows is not None
    return round(float(answer.rows.values[0][0] or b"")), answer.estimated


def fetch(replica: Replica, *queries: QueryDefinition) -> list[tuple[object, str | None]]:
    return [outcome(answer) for answer in replica.fetch(queries)]


def test_an_answer_names_its_server_and_database(database: Database, replica: Replica) -> None:
    place = conninfo_to_dict(database.standby_dsn)
    (answer,) = replica.fetch([a_query()])
    assert answer.server == f"{place['host']}:{place['port']}"
    assert answer.database == database.name
    result = to_result(answer)
    assert (result.server, result.database) == (answer.server, answer.database)


# --- estimates ----------------------------------------------------------------------------------------


def estimated(
    name: str, sql: str, above_cost: float = 1e6, estimate: str = CHEAP, **more: Any
) -> QueryDefinition:
    return a_query(name, sql, estimate={"sql": estimate, "above_cost": above_cost}, **more)


@pytest.mark.parametrize("snapshot", [True, False])
def test_the_planners_cost_decides_between_a_query_and_its_estimate(replica: Replica, snapshot: bool) -> None:
    assert fetch(
        replica,
        estimated("cheap", EXPENSIVE, 1e6, snapshot=snapshot),
        estimated("expensive", EXPENSIVE, 1.0, snapshot=snapshot),
        a_query("plain", EXPENSIVE),
    ) == [(10000, None), (-1, "cost"), (10000, None)]


@pytest.mark.parametrize("snapshot", [True, False])
def test_an_estimate_answers_after_a_timeout_without_affecting_other_queries(
    replica: Replica, snapshot: bool
) -> None:
    late = "SELECT 1 AS n FROM pg_sleep(20)"
    answers = replica.fetch(
        [
            estimated("late", late, timeout=1.0, snapshot=snapshot),
            a_query("plain", "SELECT 7 AS n"),
            a_query("late_plain", late, timeout=1.0),
        ]
    )
    assert [outcome(answer) for answer in answers] == [(-1, "timeout"), (7, None), ("timeout", None)]


def test_a_cost_that_equals_the_limit_is_not_above_it(database: Database, replica: Replica) -> None:
    ((plan,),) = database.execute(f"EXPLAIN (FORMAT JSON) {EXPENSIVE}")
    total = plan[0]["Plan"]["Total Cost"]
    assert plan[0]["Plan"]["Startup Cost"] < 1.0 < total
    assert fetch(
        replica, estimated("equal", EXPENSIVE, total), estimated("above", EXPENSIVE, total - 0.01)
    ) == [
        (10000, None),
        (-1, "cost"),
    ]


@pytest.mark.parametrize("snapshot", [True, False])
def test_the_duration_of_an_estimate_includes_the_timeout_before_it(replica: Replica, snapshot: bool) -> None:
    """The duty cycle uses it, because the server was busy for that long."""
    late = estimated("late", "SELECT 1 AS n FROM pg_sleep(20)", timeout=0.5, snapshot=snapshot)
    (answer,) = replica.fetch([late])
    assert outcome(answer) == (-1, "timeout")
    assert answer.duration >= 0.5


def test_if_the_estimate_fails_as_well_the_timeout_is_reported(replica: Replica) -> None:
    late = "SELECT 1 AS n FROM pg_sleep(20)"
    assert fetch(
        replica,
        estimated("late", late, estimate="SELECT 1 / 0 AS n", timeout=0.2),
        estimated("wrong", "SELECT 1 / (random() * 0)::int AS n"),
    ) == [("timeout", None), ("rejected", None)]


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_query_above_its_limit_of_cost_is_skipped_with_both_numbers(
    replica: Replica, snapshot: bool
) -> None:
    queries = [
        a_query("above", EXPENSIVE, max_cost=1, snapshot=snapshot),
        a_query("below", EXPENSIVE, max_cost=1e6, snapshot=snapshot),
        a_query("absent", "SELECT n FROM nowhere", max_cost=1, snapshot=snapshot),
        a_query("plain", EXPENSIVE, snapshot=snapshot),
    ]
    answers = replica.fetch(queries)
    assert [outcome(answer)[0] for answer in answers] == ["skipped(cost)", 10000, "rejected", 10000]
    above = answers[0].skipped
    assert above is not None
    assert re.fullmatch(r"the planner's cost [\d,]{2,} is above max_cost 1", above.detail)
    assert [answer.plan and answer.plan.nodes for answer in answers] == [
        ("Function Scan",), ("Function Scan",), None, None,
    ]  # fmt: skip
    assert own_failure(to_result(answers[0])) is None


@pytest.mark.parametrize("snapshot", [True, False])
def test_an_estimate_answers_above_the_lower_limit_if_it_is_cheap_enough(
    replica: Replica, snapshot: bool
) -> None:
    late = "SELECT 1 AS n FROM pg_sleep(20)"
    assert fetch(
        replica,
        estimated("lower", EXPENSIVE, 1e9, max_cost=5, snapshot=snapshot),
        estimated("both", EXPENSIVE, 1, max_cost=5, snapshot=snapshot),
        estimated("expensive", EXPENSIVE, 1, estimate=EXPENSIVE, max_cost=5, snapshot=snapshot),
        estimated("exact", CHEAP, 1, estimate=EXPENSIVE, max_cost=5, snapshot=snapshot),
        estimated("late", late, 1e9, estimate=EXPENSIVE, max_cost=5, timeout=0.5, snapshot=snapshot),
    ) == [(-1, "cost"), (-1, "cost"), ("skipped(cost)", None), (-1, None), ("timeout", None)]


def test_a_postponed_query_is_skipped_if_its_estimate_is_too_expensive(
    database: Database, make_replica: Make
) -> None:
    admission = Admission("false", check=lambda *_: Skip("busy", "wait"))
    replica = make_replica(database.standby_dsn, admission=admission)
    answers = replica.fetch(
        [
            estimated("cheap", EXPENSIVE, max_cost=5),
            estimated("expensive", EXPENSIVE, estimate=EXPENSIVE, max_cost=5),
        ]
    )
    assert [outcome(answer) for answer in answers] == [(-1, "busy"), ("skipped(cost)", None)]
    assert "the estimate's cost" in str(answers[1].skipped)


def test_a_query_without_a_plan_is_run_to_get_its_error(replica: Replica) -> None:
    assert fetch(replica, estimated("absent", "SELECT n FROM nowhere", 1.0)) == [("rejected", None)]


@pytest.mark.parametrize("reason", ["busy", "duty_cycle", "breaker"])
def test_a_postponed_query_is_answered_by_its_estimate(
    database: Database, make_replica: Make, reason: Any
) -> None:
    admission = Admission("false", check=lambda *_: Skip(reason, "wait"))
    replica = make_replica(database.standby_dsn, admission=admission)
    assert fetch(replica, estimated("guessed", EXPENSIVE), a_query("held", EXPENSIVE)) == [
        (-1, reason),
        (f"skipped({reason})", None),
    ]


def test_the_exact_and_the_estimate_see_one_snapshot(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    database.replayed()
    late = estimated(
        "late", "SELECT 1 AS n FROM pg_sleep(20)", estimate="SELECT count(*) AS n FROM t", timeout=0.5
    )

    def write(name: str) -> None:
        if name == "before":
            database.execute("INSERT INTO t VALUES (2)")
            database.replayed()

    answers = replica.fetch([a_query("before", "SELECT count(*) AS n FROM t"), late], write)
    assert [outcome(answer) for answer in answers] == [(1, None), (1, "timeout")]


# --- outside the snapshot -----------------------------------------------------------------------------


def test_a_query_outside_the_snapshot_sees_newer_rows(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    database.replayed()

    def write(name: str) -> None:
        if name == "first":
            database.execute("INSERT INTO t VALUES (2)")
            database.replayed()

    count = "SELECT count(*) AS n FROM t"
    answers = replica.fetch(
        [
            a_query("alone", count, snapshot=False),
            a_query("first", count),
            a_query("sleep", "SELECT 0 AS n FROM pg_sleep(1.5)"),
            a_query("last", count),
        ],
        write,
    )
    assert [outcome(answer) for answer in answers] == [(2, None), (1, None), (0, None), (1, None)]


def test_queries_outside_the_snapshot_have_the_same_limits_and_fail_alone(replica: Replica) -> None:
    names = ("transaction_read_only", "statement_timeout", "lock_timeout", "transaction_isolation")
    queries = [a_query(name, f"SHOW {name}", snapshot=False, timeout=7) for name in names]
    queries[2:2] = [
        a_query("wrong", "SELECT 1 / 0 AS n", snapshot=False),
        a_query("late", "SELECT 1 AS n FROM pg_sleep(9)", snapshot=False, timeout=0.2),
        a_query("writes", "CREATE TABLE nope ()", snapshot=False),
    ]
    answers = {answer.query.name: answer for answer in replica.fetch(queries)}
    assert {name: answers[name].rows.values[0][0] for name in names if answers[name].rows} == {  # type: ignore[union-attr]
        "transaction_read_only": b"on",
        "statement_timeout": b"7s",
        "lock_timeout": b"1s",
        "transaction_isolation": b"read committed",
    }
    errors = {name: answer.error.sqlstate for name, answer in answers.items() if answer.error}
    assert errors == {"wrong": "22012", "late": "57014", "writes": "25006"}


def test_a_transaction_outside_the_snapshot_is_also_read_only() -> None:
    """A pooler may hide the session's default."""
    statements = TransactionStatements(TransactionLimits(1.0), budget=10.0)
    query, end = statements.alone(a_query(snapshot=False), "SELECT 1 AS n")
    begin, _ = query.preceding
    assert begin.startswith("BEGIN ")
    assert "READ ONLY" in begin
    assert end.sql == "ROLLBACK"


def test_a_function_that_disables_the_timeout_during_planning_is_cancelled_by_the_poller(
    database: Database, make_replica: Make
) -> None:
    """PostgreSQL runs a function falsely declared IMMUTABLE between setting the timeout and the query."""
    database.execute(
        "CREATE FUNCTION unguarded() RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        "$$BEGIN PERFORM set_config('statement_timeout', '0', false); RETURN 1; END$$"
    )
    late = a_query("late", "SELECT unguarded() AS n FROM pg_sleep(60)", timeout=0.5)
    primary = make_replica(database.primary_dsn)
    answers = primary.fetch([late, a_query("first", "SHOW statement_timeout")])
    assert outcome(answers[0]) == ("timeout", None)
    assert answers[1].rows is not None, "it is run again"
    assert own_failure(to_result(answers[0])), "the circuit breaker counts it"
    assert database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%unguarded() AS n%' "
        "AND pid <> pg_backend_pid()"
    ) == [(0,)], "it was cancelled"
    (again,) = primary.fetch([a_query("again", "SHOW statement_timeout")])
    assert again.rows is not None
    assert again.rows.values == [(b"30s",)], "the changed timeout does not remain"


# --- the budget ---------------------------------------------------------------------------------------


def test_the_budget_is_half_of_the_shortest_interval_but_never_less_than_a_timeout() -> None:
    budget = TransactionLimits(1.0).budget
    assert budget([a_query("a", interval=300.0), a_query("b", interval=600.0)]) == 150.0
    assert budget([a_query("a", interval=20.0, timeout=15.0)]) == 15.5, (
        "15 s and the time for the server's reply"
    )
    assert budget([a_query("a", interval=86400.0)]) == 150.0, "the maximum, for any interval"
    assert budget([]) == 0.0


def test_a_tick_over_its_budget_ends_and_the_skipped_queries_run_first_in_the_next(
    database: Database, replica: Replica
) -> None:
    sleep = "SELECT 1 AS n FROM pg_sleep(0.5)"
    queries = [a_query(f"q{number}", sleep, interval=2.0, timeout=1.9) for number in range(10)]
    first = [value for value, _ in fetch(replica, *queries)]
    reached = first.index("skipped(budget)")
    assert 0 < reached < 10
    assert first == [1] * reached + ["skipped(budget)"] * (10 - reached)
    second = [value for value, _ in fetch(replica, *queries)]
    assert second[reached] == 1, "it ran first, although its answer has its place in the order"
    assert second[0] == "skipped(budget)"
    open_transactions = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'obscura-poller' "
        "AND datname = current_database() AND xact_start IS NOT NULL"
    )
    assert database.ask_standby(open_transactions) == [(0,)]


def test_queries_beyond_the_time_of_a_snapshot_run_in_another_snapshot_of_the_same_tick(
    database: Database, make_replica: Make
) -> None:
    replica = make_replica(database.standby_dsn, limits=TransactionLimits(1.0, longest_snapshot=0.2))
    began = "SELECT extract(epoch FROM now()) * 1000000 AS n FROM pg_sleep(0.5)"
    queries = [a_query(f"q{number}", began, interval=60.0, timeout=1.9) for number in range(6)]
    answers = [value for value, _ in fetch(replica, *queries)]
    assert all(isinstance(value, int) for value in answers)
    assert 1 < len(set(answers)) < 6, "several snapshots with several queries each"


# --- server and role ----------------------------------------------------------------------------------


def test_server_information_has_address_role_and_lag(database: Database, make_replica: Make) -> None:
    servers: list[ServerInfo] = []
    for dsn in (database.standby_dsn, database.primary_dsn):
        database.replayed()
        make_replica(dsn, on_server_info=[servers.append]).fetch([a_query("q")])
    assert [(server.address, server.port, server.standby, server.timeline) for server in servers] == [
        ("127.0.0.1", int(conninfo_to_dict(dsn)["port"] or 0), standby, 1)
        for dsn, standby in ((database.standby_dsn, True), (database.primary_dsn, False))
    ]
    assert [server.lag for server in servers] == [0.0, 0.0]


def test_strict_lists_privileges_beyond_reading_and_accepts_a_reader(
    database: Database, make_replica: Make
) -> None:
    role = f"strict_{database.name}"
    database.execute(f"CREATE TABLE t (n int); CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}")
    dsn = make_conninfo(database.standby_dsn, user=role)

    def refused(user_dsn: str) -> str | None:
        database.replayed()
        replica = make_replica(user_dsn, admission=Admission("false", strict=True))
        (answer,) = replica.fetch([a_query("q", "SELECT count(*) AS n FROM t")])
        (again,) = replica.fetch([a_query("q", "SELECT count(*) AS n FROM t")])
        replica.rest(1e9)
        assert str(again.skipped) == str(answer.skipped), "it is remembered while the connection is open"
        return str(answer.skipped).rpartition("read: ")[2] if answer.skipped else None

    try:
        assert refused(database.standby_dsn) == "superuser", "a superuser is named only as a superuser"
        database.execute("REVOKE CREATE ON SCHEMA public FROM public")
        assert refused(dsn) is None
        database.execute(f"GRANT UPDATE (n) ON t TO {role}; GRANT pg_signal_backend TO {role}")
        assert refused(dsn) == "member of pg_signal_backend, may change t"
        database.execute(f"ALTER TABLE t OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}")
        assert refused(dsn) == "member of pg_signal_backend, owner of t, may create in schema public"
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


BEYOND_READING = {
    "CREATE ROLE {other} SUPERUSER; GRANT {other} TO {role}; ALTER ROLE {role} SET role = {other}":
        "may act as {other} (superuser)",
    "CREATE ROLE {other} CREATEROLE CREATEDB REPLICATION BYPASSRLS; GRANT {other} TO {role}":
        "may act as {other} (CREATEROLE, CREATEDB, REPLICATION, BYPASSRLS)",
    "CREATE ROLE {other}; GRANT DELETE ON t TO {other}; GRANT {other} TO {role}; ALTER ROLE {role} NOINHERIT":
        "may change t",
    "CREATE ROLE {other}; GRANT UPDATE (n) ON t TO {other}; GRANT {other} TO {role}; "
    "ALTER ROLE {role} NOINHERIT": "may change t",
    "CREATE ROLE {other}; GRANT CREATE ON SCHEMA s TO {other}; "
    "GRANT CREATE ON DATABASE {database} TO {other}; GRANT {other} TO {role}; ALTER ROLE {role} NOINHERIT":
        "may create in schema s, may create schemas in database {database}",
    "GRANT UPDATE ON SEQUENCE numbers TO {role}": "may change numbers",
    "GRANT USAGE ON SEQUENCE numbers TO {role}": "may change numbers",
    "GRANT TRIGGER ON t TO {role}": "may change t",
    "GRANT ALTER SYSTEM ON PARAMETER archive_command TO {role}": "may set archive_command",
    "CREATE ROLE {other}; GRANT SET ON PARAMETER log_statement TO {other}; GRANT {other} TO {role}":
        "may set log_statement",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; GRANT SELECT ON SEQUENCE numbers TO {role}; "
    "GRANT pg_monitor, pg_read_all_data TO {role}; ALTER ROLE {role} NOINHERIT": None,
}  # fmt: skip


@pytest.fixture
def excess_of(database: Database, make_replica: Make) -> Iterator[Callable[[str], str | None]]:
    """Run statements about {role}, and return why POLLER_STRICT refuses that role; None if it does not."""
    names = {"role": f"r_{database.name}", "other": f"o_{database.name}", "database": database.name}
    database.execute(
        "REVOKE CREATE ON SCHEMA public FROM public;"
        "CREATE TABLE t (n int); CREATE SEQUENCE numbers; CREATE SCHEMA s; CREATE ROLE {role} LOGIN;"
        "GRANT SELECT ON t TO {role}".format(**names)
    )

    def excess_of(statements: str) -> str | None:
        database.execute(statements.format(**names))
        dsn = make_conninfo(database.primary_dsn, user=names["role"])
        (answer,) = make_replica(dsn, admission=Admission("false", strict=True)).fetch([a_query("q")])
        if answer.skipped is None:
            assert answer.rows is not None, answer.error
            return None
        return str(answer.skipped).rpartition("read: ")[2].replace(names["other"], "{other}")

    yield excess_of
    for role in (names["other"], names["role"]):
        if database.execute(f"SELECT FROM pg_roles WHERE rolname = '{role}'"):
            database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("statements", BEYOND_READING)
def test_strict_refuses_a_role_that_may_do_more_after_set_role_and_with_every_kind_of_object(
    database: Database, excess_of: Callable[[str], str | None], statements: str
) -> None:
    expected = BEYOND_READING[statements]
    assert excess_of(statements) == (expected and expected.replace("{database}", database.name))


def test_strict_refuses_every_predefined_role_that_can_do_more_than_read(
    database: Database, excess_of: Callable[[str], str | None]
) -> None:
    reading = {
        "pg_monitor", "pg_read_all_data", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables",
        "pg_use_reserved_connections",
    }  # fmt: skip
    roles = {name for (name,) in database.execute("SELECT rolname FROM pg_roles WHERE rolname ^@ 'pg_'")}
    acting = roles - reading - {"pg_database_owner"}  # only the owner is a member of it
    assert {"pg_signal_backend", "pg_write_all_data"} <= acting
    excess = excess_of(f"GRANT {', '.join(sorted(acting))} TO {{role}}")
    assert excess is not None
    assert {f"member of {name}" for name in acting} <= set(excess.split(", "))
    assert excess_of(f"REVOKE {', '.join(sorted(acting))} FROM {{role}}") is None


@pytest.mark.parametrize("granted", [True, False])
def test_strict_refuses_a_role_that_may_maintain_tables(
    database: Database, excess_of: Callable[[str], str | None], granted: bool
) -> None:
    """PostgreSQL 17 and later have this privilege; it locks and rewrites tables."""
    if database.execute("SELECT current_setting('server_version_num')::int")[0][0] < 170000:
        pytest.skip("PostgreSQL has this privilege from version 17 on")
    assert excess_of("GRANT MAINTAIN ON t TO {role}" if granted else "SELECT") == (
        "may change t" if granted else None
    )


def test_a_hundred_queries_over_a_slow_link_take_five_round_trips_failures_included(
    database: Database, make_replica: Make, make_proxy: Callable[[int], Proxy]
) -> None:
    """The round trips: a refused TLS request, the start-up, the opening, the queries, and the close.

    On a busy machine the standby may seem to lag, so that the lag is read once more.
    """
    proxy = make_proxy(int(conninfo_to_dict(database.standby_dsn)["port"] or 0))
    proxy.delay_up = proxy.delay_down = 0.02
    replica = make_replica(proxy.dsn(database.standby_dsn))
    queries = [a_query(f"q{number}", f"SELECT 1 / {number % 10} AS n") for number in range(100)]
    trips: list[int] = []
    while sum(count <= 5 for count in trips) < 2:
        proxy.reset_counts()
        answers = [outcome(answer)[0] for answer in replica.fetch(queries)]
        assert (answers.count("rejected"), proxy.connections) == (10, 1)
        replica.rest(1e9)
        trips.append(proxy.round_trips)
        assert trips[-1] <= 6
        assert len(trips) < 20, trips

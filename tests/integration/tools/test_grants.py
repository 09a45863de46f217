"""`poller grants` prints privileges with which a role runs the queries, and no more than they need."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from poller.cli.app import app
from poller.model.errors import ConfigError
from poller.tools.grants.script import to_sql
from poller.tools.grants.statement import needs_of
from tests.bed.definitions import a_query
from tests.bed.messaging import MessagingServer
from tests.bed.postgres import Database
from tests.bed.process import Process

Start = Callable[..., Process]
TABLES = """
CREATE TABLE users (id int, state text, secret text, uid int);
CREATE TABLE orders (id int, uid int, amount int, state text, secret text, details jsonb);
CREATE SCHEMA "App"; REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE TYPE "App".mood AS ENUM ('glad', 'sad');
CREATE FUNCTION "App".twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1';
CREATE TABLE "App"."Select" (id int, "from" int, secret text);
CREATE TABLE "App".states (name text, open bool, secret text);
CREATE VIEW "App".totals AS SELECT count(*) AS n, max(secret) AS secret FROM orders;
CREATE TABLE ev (at timestamptz, kind text, name text, secret text);
CREATE TABLE pg_mine (id int, secret text);
CREATE TABLE odd ("$$" int);
CREATE SCHEMA b; CREATE TABLE b.ev (y int, secret text);
CREATE SCHEMA types; CREATE TYPE types.state AS ENUM ('on');
CREATE FUNCTION types.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA coll; CREATE COLLATION coll.c FROM "C";
CREATE SCHEMA op; CREATE FUNCTION op.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT $1 = $2';
CREATE OPERATOR op.=== (FUNCTION = op.same, LEFTARG = int, RIGHTARG = int);
CREATE SCHEMA sizes; CREATE TABLE sizes.parts (id int) PARTITION BY RANGE (id);
CREATE FUNCTION ev_total(ev) RETURNS int LANGUAGE sql AS 'SELECT 1';
"""
RUNS = {
    "one table": "SELECT count(id) AS n FROM users WHERE state = 'a'",
    "aliases": "SELECT count(u.id) AS n FROM users u JOIN orders AS o ON o.uid = u.id WHERE o.amount > 1",
    "using": "SELECT count(u.id) AS n FROM users u JOIN orders o USING (uid)",
    "quoted": 'SELECT sum("from") AS n FROM "App"."Select"',
    "subquery": 'SELECT count(id) AS n FROM users WHERE state IN (SELECT name FROM "App".states WHERE open)',
    "correlated": (
        "SELECT count(u.id) AS n FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.uid = u.uid)"
    ),
    "lateral": (
        "SELECT sum(x.n) AS n FROM users u, LATERAL (SELECT amount AS n FROM orders WHERE uid = u.id) x"
    ),
    "with": "WITH open AS (SELECT id, state FROM users) SELECT count(id) AS n FROM open GROUP BY state",
    "recursive": (
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t, users WHERE n < id) "
        "SELECT max(n) AS n FROM t"
    ),
    "union": "SELECT id AS n FROM users UNION ALL SELECT amount FROM orders ORDER BY n LIMIT 1",
    "aliased order": "SELECT max(id) AS n, state AS of FROM users GROUP BY of ORDER BY of LIMIT 1",
    "function": "SELECT count(e.key) AS n FROM orders, jsonb_each(details) AS e(key, value)",
    "ambiguous": "SELECT sum(amount) AS n FROM users u, orders o WHERE u.id = o.uid",
    "window": "SELECT sum(id) OVER (PARTITION BY state ORDER BY uid) AS n FROM users LIMIT 1",
    "names of a schema": "SELECT \"App\".twice(1) + count('glad'::\"App\".mood)::int AS n",
    "regclass": "SELECT reltuples::bigint AS n FROM pg_class WHERE oid = '\"App\".states'::regclass",
    "view": 'SELECT n FROM "App".totals',
    "values": "SELECT count(v.a) AS n FROM (VALUES (1), (2)) AS v(a) JOIN users u ON u.id = v.a",
    "sample": "SELECT count(id) AS n FROM ONLY users u TABLESAMPLE system (100)",
    "filter": "SELECT count(*) FILTER (WHERE state = 'x') AS n FROM orders",
    "correlated without a table": (
        "SELECT n FROM (VALUES (1)) AS t(n) WHERE NOT EXISTS (SELECT FROM ev WHERE ev.kind = 'k' AND n > 0)"
    ),
    "of the outer query in ANY": (
        "SELECT count(u.id) AS n FROM users u "
        "WHERE state = ANY (SELECT state FROM \"App\".states WHERE states.open)"
    ),
    "of an outer query in LATERAL": (
        "SELECT max(x.n) AS n FROM (VALUES (1)) t(m), LATERAL (SELECT m AS n FROM ev WHERE ev.kind = 'k') x"
    ),
    "distinct on a name of the result": (
        "SELECT DISTINCT ON (d) date_trunc('day', at) AS d, 1 AS n FROM ev ORDER BY d LIMIT 1"
    ),
    "rollup of a name of the result": (
        "SELECT date_trunc('day', at) AS d, count(*) AS n FROM ev GROUP BY ROLLUP (d)"
    ),
    "group by a column that the result has too": (
        "SELECT max(name) AS kind, count(*) AS n FROM ev GROUP BY kind"
    ),
    "group by a name that the server makes": (
        "SELECT CASE WHEN kind = 'k' THEN 1 END, count(*) AS n FROM ev GROUP BY \"case\""
    ),
    "order by a name that the server makes": "SELECT ARRAY[kind], 1 AS n FROM ev ORDER BY \"array\" LIMIT 1",
    "schemas": "SELECT count(b.ev.y) AS n FROM public.ev, b.ev WHERE public.ev.kind = 'k'",
    "renamed by a subquery": (
        "SELECT count(u.id) AS n FROM users u WHERE EXISTS ("
        "SELECT FROM (SELECT amount AS state FROM orders) AS x(c) WHERE state = 'a')"
    ),
    "limit of a union": "SELECT 1 AS n UNION SELECT 2 LIMIT (SELECT max(id) FROM users)",
    "forward in recursive": (
        "WITH RECURSIVE a AS (SELECT id FROM later), later AS (SELECT id FROM users) "
        "SELECT max(id) AS n FROM a"
    ),
    "hidden by the alias of a join": (
        "SELECT count(u.id) AS n FROM users u WHERE EXISTS "
        "(SELECT FROM ((SELECT 1 AS v) u CROSS JOIN (SELECT 2 AS w) z) AS j WHERE u.state = 'a')"
    ),
    "condition of a join": (
        "SELECT count(u.id) AS n FROM users u WHERE EXISTS "
        "(SELECT FROM ev u, (SELECT 1 AS v) x JOIN (SELECT 2 AS w) z ON u.state = 'a' WHERE u.kind = 'k')"
    ),
    "text of a size": "SELECT pg_total_relation_size('sizes.parts') AS n",
    "text of a partition": "SELECT count(*) AS n FROM pg_partition_tree('sizes.parts')",
    "text of a type": "SELECT 'types.state'::regtype::oid::bigint AS n",
    "text of a function": "SELECT 'types.f()'::regprocedure::oid::bigint AS n",
    "text of a privilege": "SELECT has_table_privilege('sizes.parts', 'SELECT')::int AS n",
    "text of a privilege of a role": (
        "SELECT has_column_privilege(current_user, 'sizes.parts', 'id', 'SELECT')::int AS n"
    ),
    "text of a privilege on a function": "SELECT has_function_privilege('types.f()', 'EXECUTE')::int AS n",
    "text of an array": (
        """SELECT cardinality('{sizes.parts,"\\"App\\".states","b.ev"}'::regclass[]) AS n"""
    ),
    "array of texts": "SELECT cardinality(ARRAY['sizes.parts', '\"App\".states']::regclass[]) AS n",
    "not a relation": "SELECT count(current_setting('nowhere.setting', true)) AS n",
    "type of a column": "SELECT count(s) AS n FROM json_to_record('{}') AS t(s types.state)",
    "collation": "SELECT max(kind COLLATE coll.c) AS n FROM ev",
    "operator before ANY": (
        "SELECT count(*) AS n FROM (VALUES (1)) t(a) WHERE a OPERATOR(op.===) ANY (SELECT 1)"
    ),
    "pg_ of one's own": "SELECT sum(id) AS n FROM pg_mine",
    "catalogue": "SELECT count(*) AS n FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
}  # fmt: skip
WHOLE = {
    "every column": ("SELECT count(*) AS n FROM (SELECT * FROM users) AS x", "of SELECT *"),
    "the row": ("SELECT count(u) AS n FROM users u", "u is its whole row"),
    "rows": ("SELECT count(*) AS n FROM users", "its rows are counted; name a column of it under requires"),
    "natural": ("SELECT count(*) AS n FROM users NATURAL JOIN orders", "it is in a NATURAL JOIN"),
    "system": ("SELECT count(ctid) AS n FROM users", "the system column ctid cannot be granted"),
    "renamed": ("SELECT count(a) AS n FROM users AS u(a)", "its columns are renamed by an alias"),
    "join": (
        "SELECT max(j.amount) AS n FROM (users u JOIN orders o USING (uid)) AS j",
        "the join has an alias",
    ),
}

SERVER_DECIDES = {
    "a function of the row": "SELECT sum(e.ev_total) AS n FROM ev e",
    "no name of its own": "SELECT n FROM (VALUES (1)) AS t(n) WHERE NOT EXISTS (SELECT FROM ev WHERE n > 0)",
    "one name of its own": (
        "SELECT n FROM (VALUES (1)) AS t(n) WHERE NOT EXISTS (SELECT FROM ev WHERE kind = 'k' AND n > 0)"
    ),
    "an odd name": 'SELECT count(u."$$") AS n FROM odd u',
}
"""Every column of a table is granted if the server finds that a name is not a column of the table."""


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A role that may log in and nothing else, in a database with a few tables."""
    name = f"Grants {uuid.uuid4().hex[:8]}"
    database.execute(TABLES)
    database.execute(f'CREATE ROLE "{name}" LOGIN')
    yield name
    database.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


def granted(folder: Path, queries: list[Any], *options: str) -> str:
    (folder / "q.yaml").write_text(json.dumps({"queries": queries}))
    done = CliRunner().invoke(app, ["grants", str(folder / "q.yaml"), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def query(name: str, sql: str, **more: Any) -> dict[str, Any]:
    metric = {"name": name, "unit": "1", "description": "N.", "value_column": "n"}
    return {"name": name, "sql": sql, "metrics": [metric], **more}


def refusal(database: Database, role: str, sql: str) -> str | None:
    with psycopg.connect(make_conninfo(database.primary_dsn, user=role), autocommit=True) as connection:
        try:
            connection.execute(sql.encode())
        except psycopg.Error as error:
            return error.sqlstate
        return None


@pytest.mark.every_version
@pytest.mark.parametrize(
    "sql",
    [*RUNS.values(), *(sql for sql, _ in WHOLE.values()), *SERVER_DECIDES.values()],
    ids=[*RUNS, *WHOLE, *SERVER_DECIDES],
)
def test_a_role_with_exactly_the_printed_grants_runs_the_query(
    database: Database, role: str, tmp_path: Path, sql: str
) -> None:
    script = granted(tmp_path, [query("a", sql)], "--role", role)
    for _ in range(2):  # it can be run again
        database.execute(script)
    assert refusal(database, role, sql) is None, script
    if sql in RUNS.values():
        for table in ("users", "orders", '"App"."Select"', '"App".states', "ev", "b.ev", "pg_mine"):
            # Without USAGE on the schema an unqualified table does not exist.
            assert refusal(database, role, f"SELECT secret FROM {table}") in ("42501", "42P01"), script


@pytest.mark.parametrize(("sql", "why"), WHOLE.values(), ids=WHOLE)
def test_every_column_is_granted_with_the_reason(sql: str, why: str) -> None:
    assert f"-- All columns, because {why}.\nGRANT SELECT ON public." in to_sql(
        needs_of([a_query(sql=sql)], "public"), "poller"
    )


def test_each_privilege_is_printed_once_with_quoted_names(tmp_path: Path) -> None:
    queries = [
        query("a", "SELECT count(id) AS n FROM users", requires={"member_of": ["pg_monitor", "Odd role"]}),
        query("b", "SELECT count(id) AS n FROM users", requires={"columns": {'"App"."Se.lect"': ["user"]}}),
        query(
            "c", "SELECT max(state) AS n FROM users",
            estimate={"sql": "SELECT 1 AS n FROM e", "above_cost": 1},
            requires={"columns": {"e": ["x"]}, "member_of": ["pg_monitor"]},
        ),
    ]  # fmt: skip
    assert granted(tmp_path, queries, "--role", 'po"ller', "--schema", "In") == (
        'GRANT USAGE ON SCHEMA "App" TO "po""ller";\n'
        'GRANT USAGE ON SCHEMA "In" TO "po""ller";\n'
        'GRANT SELECT ("user") ON "App"."Se.lect" TO "po""ller";\n'
        'GRANT SELECT (x) ON "In".e TO "po""ller";\n'
        'GRANT SELECT (id, state) ON "In".users TO "po""ller";\n'
        'GRANT "Odd role" TO "po""ller";\n'
        'GRANT pg_monitor TO "po""ller";\n'
        "-- A view with security_invoker needs these privileges on its tables as well.\n"
        "-- A row security policy needs the privileges of what it reads and calls: see pg_policies.\n"
    )


def test_tables_without_a_schema_are_in_the_first_schema_of_the_search_path_of_their_query(
    tmp_path: Path,
) -> None:
    sql = "SELECT count(id) AS n FROM users"
    queries = [
        query("a", sql, settings={"search_path": '"$user", pg_catalog, "Tenant ""A""", b'}),
        query("b", sql, settings={"search_path": "Tenant_B,c"}, requires={"columns": {"orders": ["x"]}}),
        query("c", sql, settings={"jit": "off"}),
    ]
    lines = granted(tmp_path, queries).splitlines()
    assert {line for line in lines if line.startswith("GRANT")} == {
        'GRANT USAGE ON SCHEMA "Tenant ""A""" TO poller;',
        "GRANT USAGE ON SCHEMA public TO poller;",
        "GRANT USAGE ON SCHEMA tenant_b TO poller;",
        'GRANT SELECT (id) ON "Tenant ""A""".users TO poller;',
        "GRANT SELECT (x) ON public.orders TO poller;",
        "GRANT SELECT (id) ON public.users TO poller;",
        "GRANT SELECT (id) ON tenant_b.users TO poller;",
    }


def test_grants_that_need_a_database_to_be_exact_are_comments(tmp_path: Path) -> None:
    queries = [
        query("a", "SELECT app.secret() AS n FROM pg_ls_waldir()"),
        query("b", "SELECT count(*) AS n FROM pg_statistic, pg_class, pg_stat_statements"),
        query("c", "SELECT sum(id) AS n FROM users"),
    ]
    assert granted(tmp_path, queries).splitlines()[3:] == [
        "-- Not granted, because they are PostgreSQL's or an extension's own: pg_class, pg_stat_statements.",
        "-- Not granted, because PostgreSQL restricts who may read them: pg_statistic.",
        "-- Grant EXECUTE, or membership in pg_monitor, if PUBLIC may not call: app.secret, pg_ls_waldir.",
        "-- A view with security_invoker needs these privileges on its tables as well.",
        "-- A row security policy needs the privileges of what it reads and calls: see pg_policies.",
    ]


@pytest.mark.parametrize(
    ("sql", "reader"),
    {
        "SELECT pg_total_relation_size('app.' || 'orders') AS n": "pg_total_relation_size",
        "SELECT v.t::regclass::oid::bigint AS n FROM (VALUES ('app.orders')) AS v(t)": "regclass",
        "SELECT to_regclass(v.t)::oid::bigint AS n FROM (VALUES ('app.orders')) AS v(t)": "to_regclass",
        "SELECT has_table_privilege(concat('app.', 'orders'), 'SELECT')::int AS n": "has_table_privilege",
        "SELECT pg_total_relation_size(relid) AS n, relid::regclass FROM pg_stat_user_tables": None,
        "SELECT pg_total_relation_size('app.orders') AS n": None,
    }.items(),
    ids=str,
)
def test_a_name_that_the_query_computes_is_a_comment(sql: str, reader: str | None) -> None:
    script = to_sql(needs_of([a_query(sql=sql)], "public"), "poller")
    lines = [line for line in script.splitlines() if "computes" in line]
    expected = f"-- Grant USAGE on the schemas of the names that the query computes for: {reader}."
    assert lines == ([expected] if reader else [])


@pytest.mark.parametrize("name", ["public", "none", ""])
def test_a_name_that_is_not_a_single_role_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": [query("a", "SELECT 1 AS n")]}))
    done = CliRunner().invoke(app, ["grants", str(tmp_path / "q.yaml"), "--role", name])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"--role: '{name}' is not one role; write the poller's login role"
    assert done.stdout == ""


@pytest.mark.every_version
def test_exactly_the_catalogue_relations_that_public_cannot_read_are_named_as_restricted(
    database: Database, role: str
) -> None:
    with psycopg.connect(make_conninfo(database.primary_dsn, user=role)) as connection:
        relations = connection.execute(
            "SELECT relname, has_table_privilege(oid, 'SELECT') FROM pg_class "
            "WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')"
        ).fetchall()
    connection.close()
    for name, readable in relations:
        needs = needs_of([a_query(sql=f"SELECT count(*) AS n FROM {name}")], "public")
        assert not needs.columns, name
        assert ("restricts who may read" in to_sql(needs, "poller")) is not readable, name


@pytest.mark.every_version
def test_the_shipped_queries_are_polled_by_a_role_with_exactly_their_grants(
    server: MessagingServer, poller_process: Start
) -> None:
    role = f"grants_{uuid.uuid4().hex[:8]}"
    script = CliRunner().invoke(app, ["grants", "shipped", "--role", role]).stdout
    server.execute(f"CREATE ROLE {role} LOGIN")
    try:
        server.execute(script)
        server.replayed()
        process = poller_process(
            "poll", "--format", "json",
            env={"POLLER_DATABASE_URL": make_conninfo(server.standby_dsn, user=role)},
        )  # fmt: skip
        assert process.wait() == 0, process
    finally:
        server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert {query["state"] for query in json.loads(process.stdout)["queries"]} == {"ok"}

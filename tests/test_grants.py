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

from poller.cli import app
from poller.grants import needs_of, to_sql
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
    "window": "SELECT sum(id) OVER (PARTITION BY state ORDER BY uid) AS n FROM users LIMIT 1",
    "names of a schema": "SELECT \"App\".twice(1) + count('glad'::\"App\".mood)::int AS n",
    "regclass": "SELECT reltuples::bigint AS n FROM pg_class WHERE oid = '\"App\".states'::regclass",
    "view": 'SELECT n FROM "App".totals',
    "values": "SELECT count(v.a) AS n FROM (VALUES (1), (2)) AS v(a) JOIN users u ON u.id = v.a",
    "sample": "SELECT count(id) AS n FROM ONLY users u TABLESAMPLE system (100)",
    "filter": "SELECT count(*) FILTER (WHERE state = 'x') AS n FROM orders",
    "catalogue": "SELECT count(*) AS n FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
}  # fmt: skip
WHOLE = {
    "every column": ("SELECT count(*) AS n FROM (SELECT * FROM users) AS x", "of SELECT *"),
    "the row": ("SELECT count(u) AS n FROM users u", "u is its whole row"),
    "rows": ("SELECT count(*) AS n FROM users", "its rows are counted; name a column of it under requires"),
    "natural": ("SELECT count(*) AS n FROM users NATURAL JOIN orders", "it is in a NATURAL JOIN"),
    "ambiguous": (
        "SELECT sum(amount) AS n FROM users u, orders o WHERE u.id = o.uid",
        "the column amount may be of several tables; write TABLE.amount",
    ),
    "system": ("SELECT count(ctid) AS n FROM users", "the system column ctid cannot be granted"),
    "renamed": ("SELECT count(a) AS n FROM users AS u(a)", "its columns are renamed by an alias"),
    "join": (
        "SELECT max(j.amount) AS n FROM (users u JOIN orders o USING (uid)) AS j",
        "the join has an alias",
    ),
}


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


@pytest.mark.postgres
@pytest.mark.parametrize("sql", [*RUNS.values(), *(sql for sql, _ in WHOLE.values())], ids=[*RUNS, *WHOLE])
def test_a_role_with_exactly_these_grants_runs_the_query(
    database: Database, role: str, tmp_path: Path, sql: str
) -> None:
    script = granted(tmp_path, [query("a", sql)], "--role", role)
    for _ in range(2):  # it can be run again
        database.execute(script)
    assert refusal(database, role, sql) is None, script
    if sql in RUNS.values():
        for table in ("users", "orders", '"App"."Select"', '"App".states'):
            # Without USAGE on its schema a table without a schema's name is not even found.
            assert refusal(database, role, f"SELECT secret FROM {table}") in ("42501", "42P01"), script


@pytest.mark.parametrize(("sql", "why"), WHOLE.values(), ids=WHOLE)
def test_every_column_is_granted_only_with_the_reason(sql: str, why: str) -> None:
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
    )


@pytest.mark.postgres
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
    assert {one["state"] for one in json.loads(process.stdout)["queries"]} == {"ok"}

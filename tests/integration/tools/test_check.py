"""`poller check --database` reports the problems of every query without running it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner, Result

from poller.cli.app import app
from poller.model.errors import ConfigError, PollError
from poller.postgres.inspect import inspect
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from poller.receiver.ports import free_ports
from poller.tools.check.result import RULES
from tests.bed.postgres import Database

QUERY = """\
  - name: {name}
    sql: {sql}
{more}    metrics:
      - name: {name}
        description: x
        unit: "{{thing}}"
        value_column: n
{metric}"""

TABLES = """
CREATE TYPE mood AS ENUM ('glad', 'sad', 'cross');
CREATE TABLE things (id int PRIMARY KEY, state text, mood mood, at timestamptz, hidden text)
     WITH (autovacuum_enabled = off);
INSERT INTO things (id, state) SELECT g, 's' || g % 3 FROM generate_series(1, 5000) g;
CREATE TABLE fresh (n int) WITH (autovacuum_enabled = off);
ANALYZE things;
"""


@pytest.fixture
def things(database: Database) -> Database:
    """A database with an analysed table of 5000 rows, and a table without statistics."""
    database.execute(TABLES)
    database.replayed()
    return database


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `poller check` in a folder with `q.yaml`, which contains `queries`."""

    def run(queries: str, *options: str) -> Result:
        monkeypatch.chdir(tmp_path)
        Path("q.yaml").write_text(f"queries:\n{queries}", encoding="utf-8")
        return CliRunner().invoke(app, ["check", "q.yaml", *options])

    return run


def query(sql: str, *, more: str = "", metric: str = "", name: str = "a") -> str:
    return QUERY.format(name=name, sql=sql, more=more, metric=metric)


def by(*columns: str, **values: list[str]) -> str:
    closed = f"        attribute_values: {json.dumps(values)}\n" if values else ""
    return f"        attribute_columns: {json.dumps(columns)}\n{closed}"


GROUPED = "SELECT count(*) AS n, {0} FROM things GROUP BY {0}"
COUNT = "SELECT count(*) AS n FROM things"
HISTOGRAM = "        histogram: [1, 10]\n"
ESTIMATE = "    estimate: {{sql: {sql}, above_cost: {cost}}}\n"

REPORTED: dict[str, tuple[str, list[str]]] = {
    # The query, and the reported problems.
    "column": (
        query("SELECT 1 AS m"),
        ["error 8 column queries[0].metrics[0].value_column: column 'n' is missing; the result has m"],
    ),
    "column-misspelt": (
        query("SELECT 1 AS n, 'x' AS stat", metric=by("state")),
        [
            (
                "error 9 column queries[0].metrics[0].attribute_columns: column 'state' is missing; "
                "the result has "
                "n, stat; did you mean 'stat'?"
            )
        ],
    ),
    "unused-column": (
        query("SELECT 's' AS state, 'm' AS mood, pg_sleep(0), 1 AS n", metric=by("mood")),
        [
            (
                "warning 3 unused-column queries[0].sql: column 'state' feeds no metric: rows that differ "
                "only in it are rejected as duplicates; add it to attribute_columns, or remove it from "
                "the SELECT"
            )
        ],
    ),
    "column-twice": (
        query("SELECT 1 AS n, 2 AS n, 'x' AS s, 'y' AS s", metric=by("s")),
        [
            (
                "error 8 column queries[0].metrics[0].value_column: column 'n' comes 2 times; rename "
                "all but one "
                "with AS"
            ),
            (
                "error 9 column queries[0].metrics[0].attribute_columns: column 's' comes 2 times; "
                "rename all but "
                "one with AS"
            ),
        ],
    ),
    "not-numeric": (
        query("SELECT now() AS n"),
        [
            (
                "error 8 not-numeric queries[0].metrics[0].value_column: value column 'n' is "
                "timestamptz, not a "
                "number; write extract(epoch FROM n)"
            )
        ],
    ),
    "rejected": (
        query("|\n      SELECT count(*) AS n\n      FROM things\n      WHERE nowhere = 1"),
        [
            (
                'error 6:13 rejected queries[0].sql: column "nowhere" does not exist (42703, line 3, '
                "column 7 of "
                "sql); if that is expected here, name it under requires.columns"
            )
        ],
    ),
    "rejected-on-one-line": (
        query("SELECT 1 AS n FROM absent"),
        [
            (
                'error 3:29 rejected queries[0].sql: relation "absent" does not exist (42P01, line '
                "1, column 20 of "
                "sql); if that is expected here, name it under requires.columns"
            )
        ],
    ),
    "rejected-and-misspelt": (
        query("SELECT 1 AS n FROM thigns"),
        [
            (
                'error 3:29 rejected queries[0].sql: relation "thigns" does not exist (42P01, line 1, '
                "column 20 of sql); did you mean 'things'?"
            )
        ],
    ),
    "rejected-in-the-plan": (
        query("SELECT 1/0 AS n"),
        ["error 3:5 rejected queries[0].sql: division by zero (22012); guard the division: x / nullif(y, 0)"],
    ),
    "attribute-type-time": (
        query("SELECT 1 AS n, now() AS at", metric=by("at")),
        [
            (
                "warning 9 attribute-type queries[0].metrics[0].attribute_columns: attribute column 'at' is "
                "timestamp with time zone, and each value creates a separate series; round it with "
                "date_trunc, or "
                "make it a value: extract(epoch FROM at)"
            )
        ],
    ),
    "histogram-attribute-type-time": (
        query("SELECT 1 AS n, now() AS at", metric=HISTOGRAM + by("at")),
        [
            (
                "warning 10 attribute-type queries[0].metrics[0].attribute_columns: attribute column 'at' is "
                "timestamp with time zone, and each value creates a separate series; round it with "
                "date_trunc, or make it a value: extract(epoch FROM at)"
            )
        ],
    ),
    "histogram-rejected": (
        query("|\n      SELECT 1 AS n -- each\n      FROM absent;", metric=HISTOGRAM),
        [
            (
                'error 5:12 rejected queries[0].sql: relation "absent" does not exist (42P01, line 2, '
                "column 6 of sql); if that is expected here, name it under requires.columns"
            )
        ],
    ),
    "histogram-not-a-number": (
        query("SELECT now() AS n", metric=HISTOGRAM),
        [
            (
                "error 8 not-numeric queries[0].metrics[0].value_column: value column 'n' is timestamptz, "
                "not a number; write extract(epoch FROM n)"
            )
        ],
    ),
    "histogram-of-texts": (
        query("SELECT 'slow' AS n, 'x' AS s", metric=HISTOGRAM + by("s")),
        [
            (
                "error 8 not-numeric queries[0].metrics[0].value_column: value column 'n' is text, "
                "not a number; write n::numeric"
            )
        ],
    ),
    "histogram-of-an-estimate": (
        query(
            "SELECT 'a' AS n, 'x' AS s",
            more=ESTIMATE.format(sql="SELECT m AS n FROM absent", cost=10),
            metric=HISTOGRAM + by("s", "nowhere"),
        ),
        [
            (
                'error 4:40 rejected queries[0].estimate.sql: relation "absent" does not exist (42P01, line '
                "1, column 20 of sql); if that is expected here, name it under requires.columns"
            ),
            (
                "error 9 not-numeric queries[0].metrics[0].value_column: value column 'n' is text, "
                "not a number; write n::numeric"
            ),
            (
                "error 11 column queries[0].metrics[0].attribute_columns: column 'nowhere' is missing; the "
                "result has n, s"
            ),
        ],
    ),
    "histogram-without-its-column": (
        query("SELECT 1 AS m", metric=HISTOGRAM),
        [("error 8 column queries[0].metrics[0].value_column: column 'n' is missing; the result has m")],
    ),
    "attribute-type-others": (
        query(
            "SELECT 1 AS n, 0.5::float8 AS ratio, '{}'::jsonb AS doc, '{}'::text[] AS tags",
            metric=by("ratio", "doc", "tags"),
        ),
        [
            (
                "warning 9 attribute-type queries[0].metrics[0].attribute_columns: attribute column "
                "'ratio' is "
                "double precision, and each value creates a separate series; round it, or make it a "
                "value column"
            ),
            (
                "warning 9 attribute-type queries[0].metrics[0].attribute_columns: attribute column 'doc' is "
                "jsonb, and each value creates a separate series; select the part that "
                "distinguishes the series"
            ),
            (
                "warning 9 attribute-type queries[0].metrics[0].attribute_columns: attribute column "
                "'tags' is "
                "text[], and each value creates a separate series; select the part that "
                "distinguishes the series"
            ),
        ],
    ),
    "attribute-values": (
        query("SELECT 1 AS n, 'glad'::mood AS mood", metric=by("mood", mood=["glad", "sadd"])),
        [
            (
                "warning 10 attribute-values queries[0].metrics[0].attribute_values: 'sadd' is not "
                "a value of mood; "
                "did you mean 'sad'?"
            ),
            (
                "warning 10 attribute-values queries[0].metrics[0].attribute_values: mood also has sad, "
                "cross, and rows with undeclared values are rejected; add them"
            ),
        ],
    ),
    "requires": (
        query("SELECT 1 AS n FROM absent", more="    requires: {columns: {absent: []}}\n"),
        ["note 4 requires queries[0].requires: is not sent to this server: relation absent does not exist"],
    ),
    "requires-role": (
        query("SELECT 1 AS n", more="    requires: {role: primary}\n"),
        [
            (
                "note 4 requires queries[0].requires: is not sent to this server: needs a primary, "
                "this server is "
                "a standby"
            )
        ],
    ),
    "search-path": (
        query(
            "SELECT count(*) AS n FROM fresh",
            more="    settings: {search_path: 'Publik, public, \"$user\"'}\n",
        ),
        [
            (
                "note 3 statistics queries[0].sql: public.fresh was never analysed, so the cost is "
                "unreliable; run "
                "ANALYZE public.fresh"
            ),
            (
                "warning 4 search-path queries[0].settings.search_path: the schema 'publik' does not exist "
                "in this database, so no table is looked up in it; did you mean 'public'?"
            ),
        ],
    ),
    "sequential-scan": (
        query(COUNT),
        [
            (
                "warning 3 sequential-scan queries[0].sql: reads all of public.things, 5,000 rows; "
                "add an "
                'estimate: {sql: "SELECT nullif(reltuples, -1)::bigint AS n FROM pg_class WHERE oid = '
                "'public.things'::regclass\", above_cost: N}"
            )
        ],
    ),
    "sequential-scan-of-groups": (
        query(GROUPED.format("state"), metric=by("state")),
        [
            (
                "warning 3 sequential-scan queries[0].sql: reads all of public.things, 5,000 rows; use a "
                "longer interval, or add an estimate"
            )
        ],
    ),
    "sequential-scan-below-its-estimate": (
        query(COUNT, more=ESTIMATE.format(sql="SELECT 1 AS n", cost=1e6)),
        [
            (
                "warning 3 sequential-scan queries[0].sql: reads all of public.things, 5,000 rows; use a "
                "longer interval"
            )
        ],
    ),
    "missing-index": (
        query(f"{COUNT} WHERE at = now()"),
        [
            (
                "warning 3 missing-index queries[0].sql: reads all of public.things, 5,000 rows, to "
                "find N; create "
                "an index: CREATE INDEX CONCURRENTLY ON public.things (at)"
            )
        ],
    ),
    "statistics": (
        query("SELECT count(*) AS n FROM fresh"),
        [
            (
                "note 3 statistics queries[0].sql: public.fresh was never analysed, so the cost is "
                "unreliable; run "
                "ANALYZE public.fresh"
            )
        ],
    ),
    "estimate": (
        query(COUNT, more=ESTIMATE.format(sql="SELECT 1 AS n", cost=1)),
        [
            (
                "note 4 estimate queries[0].estimate.above_cost: the estimate is used on this server, "
                "because the exact query's cost N exceeds above_cost N"
            )
        ],
    ),
    "estimate-below-max-cost": (
        query(COUNT, more="    max_cost: 2\n" + ESTIMATE.format(sql="SELECT 1 AS n", cost=1e6)),
        [
            (
                "note 4 estimate queries[0].max_cost: the estimate is used on this server, "
                "because the exact query's cost N exceeds max_cost N"
            )
        ],
    ),
    "estimate-that-is-dearer": (
        query("SELECT 1 AS n", more=ESTIMATE.format(sql=COUNT, cost=1)),
        [
            (
                "warning 4 estimate queries[0].estimate.sql: costs N, not less than the exact query's 0; "
                "remove the estimate"
            )
        ],
    ),
    "estimate-with-other-columns": (
        query("SELECT 1 AS n", more=ESTIMATE.format(sql="SELECT 1 AS m", cost=1)),
        [
            (
                "warning 4 estimate queries[0].estimate.sql: costs 0, not less than the exact query's 0; "
                "remove the estimate"
            ),
            (
                "error 9 column queries[0].metrics[0].value_column: column 'n' is missing; the "
                "result has m (in "
                "the estimate's sql)"
            ),
        ],
    ),
    "max-cost": (
        query("SELECT count(*) AS n FROM generate_series(1, 1000000000) g WHERE g % 7 = 1"),
        [
            (
                "error 3 max-cost queries[0].sql: the planner's cost N is above max_cost N, so no "
                "poll runs it; make it cheaper, or add an estimate"
            )
        ],
    ),
    "max-cost-of-its-own": (
        query("SELECT count(*) AS n FROM generate_series(1, 1000)", more="    max_cost: 5\n"),
        [
            (
                "error 3 max-cost queries[0].sql: the planner's cost N is above max_cost N, so no poll runs "
                "it; make it cheaper, or add an estimate"
            )
        ],
    ),
    "max-cost-of-an-estimate": (
        query(
            "SELECT count(*) AS n FROM generate_series(1, 1000000000) g",
            more=ESTIMATE.format(
                sql='"SELECT count(*) AS n FROM generate_series(1, 900000000) g"', cost=1000
            ),
        ),
        [
            (
                "note 4 estimate queries[0].estimate.above_cost: the estimate is used on this server, "
                "because the exact query's cost N exceeds above_cost N"
            ),
            (
                "error 4 max-cost queries[0].estimate.sql: the planner's cost N is above max_cost N, "
                "so no poll runs it; make "
                "it cheaper"
            ),
        ],
    ),
}


def without_numbers(problem: dict[str, Any]) -> str:
    """Return a problem as a line, without costs and row estimates, which differ between versions."""
    column = f":{problem['column']}" if problem["rule"] == "rejected" else ""
    message = re.sub(r"(costs?|above_cost:|to find) (?!0\b)\d[\d,]*\b", r"\1 N", problem["message"])
    return f"{problem['level']} {problem['line']}{column} {problem['rule']} {problem['path']}: {message}"


@pytest.mark.every_version
def test_each_problem_is_reported_with_its_rule_place_and_advice(
    things: Database, check: Callable[..., Result]
) -> None:
    """All queries are in one file, so that a failure of one must not affect the others."""
    files: list[str] = []
    expected: list[str] = []
    line = 1
    for number, (text, messages) in enumerate(REPORTED.values()):
        files.append(re.sub(r"name: a$", f"name: a{number}", text, flags=re.MULTILINE))
        for message in messages:
            at = re.sub(r"^(\w+) (\d+)", lambda m, line=line: f"{m[1]} {int(m[2]) + line - 1}", message)  # type: ignore[misc] # a lambda in a loop
            expected.append(at.replace("queries[0]", f"queries[{number}]"))
        line += text.count("\n")
    options = ["--database", "--max-cost", "1000000", "--large-table", "1000", "--format", "json"]
    done = check("".join(files), *options, "--database-url", things.standby_dsn)
    report = json.loads(done.stdout)

    assert [without_numbers(problem) for problem in report["problems"]] == expected
    assert (done.exit_code, report["ok"]) == (1, False)
    assert {query["state"] for query in report["queries"]} == {"ok", "refused", "not_sent"}
    answers = {
        name for name, query in zip(REPORTED, report["queries"], strict=True) if query["estimate_answers"]
    }
    assert answers == {"estimate", "estimate-below-max-cost", "max-cost-of-an-estimate"}
    # Other tests cover these rules, below, in test_check_warnings.py and in test_time_column.py.
    tested_elsewhere = {"query-file", "database", "privilege", "volatile-function"}
    tested_elsewhere |= {
        "targets-file",
        "unused-target",
        "same-series",
        "own-setting",
        "own-backend",
        "attribute-text",
        "old-times",
        "open-bucket",
        "not-a-time",
    }
    assert {problem["rule"] for problem in report["problems"]} == RULES.keys() - tested_elsewhere


@pytest.mark.every_version
def test_missing_privileges_are_reported(things: Database, check: Callable[..., Result]) -> None:
    name = f"reader_{things.name}"
    things.execute(f"CREATE ROLE {name} LOGIN; GRANT SELECT (id, state) ON things TO {name}")
    try:
        things.replayed()
        foreseen = query(
            "SELECT count(hidden) AS n FROM things",
            more="    requires: {columns: {things: [hidden]}}\n",
            name="b",
        )
        done = check(
            query("SELECT count(hidden) AS n FROM things")
            + foreseen
            + query("SELECT count(id) AS n FROM things", name="c"),
            "--database", "--format", "json", "--database-url", make_conninfo(things.standby_dsn, user=name),
        )  # fmt: skip
    finally:
        things.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    report = json.loads(done.stdout)

    assert [without_numbers(problem) for problem in report["problems"]] == [
        (
            "error 3 privilege queries[0].sql: permission denied for table things (42501); grant the "
            "poller's role what the query reads; `poller grants` prints the privileges"
        ),
        (
            "warning 11 requires queries[1].requires: is not sent to this server: column "
            "things.hidden may not be "
            "read; GRANT SELECT on it, and USAGE on its schema"
        ),
    ]
    assert [query["state"] for query in report["queries"]] == ["refused", "not_sent", "ok"]


VOLATILE = """
CREATE SCHEMA app;
CREATE FUNCTION app.lurks(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION counts(a int) RETURNS int STABLE LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION counts(a int, b int, c int) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION of_row(a things) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION of_number(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE OPERATOR #-# (FUNCTION = app.lurks, LEFTARG = int, RIGHTARG = int);
CREATE VIEW inner_view AS SELECT app.lurks(1) AS n;
CREATE VIEW outer_view AS SELECT n FROM inner_view;
CREATE FUNCTION app.adds(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE AGGREGATE app.total(int) (SFUNC = app.adds, STYPE = int);
CREATE OPERATOR app.### (FUNCTION = app.adds, LEFTARG = int, RIGHTARG = int);
CREATE FUNCTION app.fits(a int) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION app.differs(a int, b int) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR <<< (FUNCTION = app.differs, LEFTARG = int, RIGHTARG = int);
CREATE DOMAIN app.small AS int CHECK (app.fits(VALUE));
CREATE TYPE app.pair AS (a int, b int);
CREATE FUNCTION app.pairs(a int) RETURNS app.pair LANGUAGE sql AS 'SELECT ROW(a, a)::app.pair';
CREATE CAST (int AS app.pair) WITH FUNCTION app.pairs(int);
CREATE VIEW by_aggregate AS SELECT app.total(1) AS n;
CREATE VIEW by_operator AS SELECT 1 OPERATOR(app.###) 2 AS n;
CREATE VIEW by_domain AS SELECT 1::app.small::int AS n;
CREATE VIEW by_builtin AS SELECT pg_try_advisory_lock(5)::int AS n;
CREATE VIEW by_random AS SELECT random()::int AS n;
CREATE FUNCTION pgstat_own(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION allowed(a int) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE TABLE guarded (n int);
CREATE POLICY p ON guarded USING (allowed(n));
CREATE TYPE app.sized AS (id int, size app.small);
CREATE TYPE app.nested AS (inside app.sized[]);
CREATE TABLE sizes (size app.small);
CREATE VIEW by_composite AS SELECT (ROW(1, 1)::app.sized).id AS n;
CREATE MATERIALIZED VIEW stored AS SELECT app.lurks(1) AS n;
CREATE VIEW of_stored AS SELECT n FROM stored;
CREATE RULE logs AS ON INSERT TO guarded DO ALSO SELECT app.lurks(1);
CREATE RULE writes AS ON INSERT TO of_stored DO INSTEAD SELECT app.lurks(1);
"""


@pytest.mark.every_version
@pytest.mark.parametrize(
    ("sql", "names"),
    {
        "SELECT app.lurks(1) AS n": ["app.lurks"],
        "SELECT (1).counts AS n": [],
        "SELECT counts(1) AS n": [],
        "SELECT counts(1, 2, 3) AS n": ["public.counts"],
        "SELECT things.of_row AS n FROM things": ["public.of_row"],
        "SELECT (things).of_row AS n FROM things": ["public.of_row"],
        "SELECT x.of_number AS n FROM generate_series(1, 1) AS x": ["public.of_number"],
        "SELECT 1 #-# 2 AS n": ["app.lurks"],
        "SELECT n FROM outer_view": ["app.lurks"],
        "WITH outer_view AS (SELECT 1 AS n) SELECT n FROM outer_view": [],
        "SELECT count(n) AS n FROM guarded": ["public.allowed"],
        "SELECT app.total(1) AS n": ["app.adds"],
        "SELECT 1 OPERATOR(app.###) 2 AS n": ["app.adds"],
        "SELECT (1 <<< ANY (SELECT 2))::int AS n": ["app.differs"],
        "SELECT 1::app.small::int AS n": ["app.fits"],
        "SELECT n FROM json_to_recordset('[]') AS t(n app.small)": ["app.fits"],
        "SELECT (5::app.pair).a AS n": ["app.pairs"],
        "SELECT (CAST(ARRAY[5] AS app.small[]))[1] AS n": ["app.fits"],
        "SELECT n FROM by_aggregate": ["app.adds"],
        "SELECT n FROM by_operator": ["app.adds"],
        "SELECT n FROM by_domain": ["app.fits"],
        "SELECT (ROW(1, 1)::app.sized).id AS n": ["app.fits"],
        "SELECT (json_populate_record(NULL::app.nested, '{}')).inside[1].id AS n": ["app.fits"],
        "SELECT (json_populate_record(NULL::sizes, '{}')).size AS n": ["app.fits"],
        "SELECT size AS n FROM sizes": [],
        "SELECT n FROM by_composite": ["app.fits"],
        "SELECT n FROM stored": [],
        "SELECT n FROM of_stored": [],
        "SELECT n FROM by_builtin": ["pg_try_advisory_lock"],
        "SELECT n FROM by_random": [],
        "WITH inner_view AS (SELECT * FROM inner_view) SELECT n FROM inner_view": ["app.lurks"],
        "SELECT pgstat_own(1) AS n": ["public.pgstat_own"],
        "SELECT pg_database_size(oid) + random() AS n FROM pg_database LIMIT 1": [],
    }.items(),
    ids=str,
)
def test_a_volatile_function_that_may_write_is_a_warning(
    things: Database, check: Callable[..., Result], sql: str, names: list[str]
) -> None:
    """The query may call it by name, as an attribute, or by an operator, a view or a policy."""
    things.execute(VOLATILE)
    done = check(
        query(json.dumps(sql)), "--database", "--format", "json", "--database-url", things.primary_dsn
    )
    warned = [problem for problem in json.loads(done.stdout)["problems"] if "VOLATILE" in problem["message"]]

    assert [re.match(r"calls (\S+), which", problem["message"])[1] for problem in warned] == names  # type: ignore[index] # None is a failure
    assert {(problem["level"], problem["rule"]) for problem in warned} <= {("warning", "volatile-function")}
    assert done.exit_code == 0


@pytest.mark.every_version
def test_the_server_parses_the_statement_that_was_checked(
    things: Database, check: Callable[..., Result]
) -> None:
    r"""With that setting `\'` would not end the text, and the result would have no column `n`."""
    things.execute(f"ALTER DATABASE {things.name} SET standard_conforming_strings = off")
    sql = r"SELECT '\' AS a, 1 AS n --' AS b"
    done = check(
        query(json.dumps(sql)), "--database", "--format", "json", "--database-url", things.primary_dsn
    )
    assert {problem["rule"] for problem in json.loads(done.stdout)["problems"]} == {"unused-column"}


@pytest.mark.every_version
@pytest.mark.every_version
def test_a_statement_is_prepared_and_planned_with_the_settings_of_its_query(
    things: Database, check: Callable[..., Result]
) -> None:
    things.execute(
        """
        CREATE SCHEMA tenant; CREATE TABLE tenant.rooms AS SELECT 1 AS id; ANALYZE tenant.rooms;
        CREATE FUNCTION tenant.act() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
        """
    )
    things.replayed()
    rooms = "SELECT count(*) AS n FROM rooms"
    tenant = "    settings: {search_path: tenant}\n"
    done = check(
        query(rooms, more=tenant + ESTIMATE.format(sql=rooms, cost=1e6))
        + query("SELECT act() AS n", more=tenant, name="b")
        + query(rooms, name="c")
        + query("SELECT 1 AS n", more="    settings: {jit: off, search_path: 'a,,b'}\n", name="d")
        + query("SELECT count(*) AS n FROM things", more=tenant, name="e"),
        "--database", "--format", "json", "--database-url", things.standby_dsn,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert [query["state"] for query in report["queries"]] == ["ok", "ok", "refused", "refused", "refused"]
    problems = [(problem["rule"], problem["path"], problem["message"]) for problem in report["problems"]]
    assert [path for _, path, _ in problems] == [
        "queries[0].estimate.sql", "queries[1].sql", "queries[2].sql", "queries[3].settings.search_path",
        "queries[4].sql",
    ]  # fmt: skip
    assert problems[1][0] == "volatile-function"
    assert problems[1][2].startswith("calls tenant.act, which is declared VOLATILE")
    assert problems[3][2].startswith('invalid value for parameter "search_path": "a,,b" (List syntax is')
    assert problems[4][2].endswith("did you mean 'public.things'?")


def test_no_query_is_run(things: Database, check: Callable[..., Result]) -> None:
    """A statement that would never end is prepared and planned like the others."""
    sql = "WITH RECURSIVE e AS (SELECT 1 AS n UNION ALL SELECT n FROM e) SELECT count(*) AS n FROM e"
    done = check(
        query(sql) + query("SHOW work_mem", name="b"), "--database", "--database-url", things.standby_dsn
    )
    ok, refused, summary = done.stdout.splitlines()

    assert re.fullmatch(r"ok       q\.yaml:2: a: cost [\d,]+; n bigint", ok)
    assert refused == (
        "error    q.yaml:15: queries[1].metrics[0].value_column: column 'n' is missing; the result "
        "has work_mem"
    )
    assert summary == "2 queries: 1 error, 0 warnings, 0 notes"
    assert done.exit_code == 1


def test_a_subfolder_with_query_files_is_reported_as_not_read(tmp_path: Path) -> None:
    for folder in ("mine", "mine/sub", "mine/..data", "mine/cases", "mine/empty"):
        (tmp_path / folder).mkdir()
        name = "a.test.yaml" if folder == "mine/cases" else "a.yaml"
        if folder != "mine/empty":
            (tmp_path / folder / name).write_text(f"queries:\n{query('SELECT 1 AS n')}")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "mine")])
    assert done.exit_code == 0
    assert done.stderr == (
        f"{tmp_path}/mine/sub: not read, because folders are not searched recursively; name it\n"
    )
    shipped = CliRunner().invoke(app, ["check", "shipped"])
    assert shipped.stderr == ""


@pytest.mark.every_version
def test_warnings_do_not_fail_the_check(things: Database, check: Callable[..., Result]) -> None:
    options = ["--database", "--large-table", "1000", "--database-url", things.primary_dsn]
    done = check(query(COUNT), *options)

    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "1 query: 0 errors, 1 warning, 0 notes"


def test_an_unreachable_database_is_a_separate_error(check: Callable[..., Result]) -> None:
    (port,) = free_ports(1)
    url = f"postgresql://poller:sekret@127.0.0.1:{port}/app"
    done = check(query("SELECT 1 AS n"), "--database", "--format", "json", "--database-url", url)
    (problem,) = json.loads(done.stdout)["problems"]

    assert done.exit_code == 1
    assert (problem["rule"], problem["path"], problem["file"]) == ("database", "--database-url", None)
    assert "Connection refused" in problem["message"]
    assert problem["message"].endswith(
        "start the server, or correct host and port (and its listen_addresses)"
    )
    assert "sekret" not in done.output
    plain = check(query("SELECT 1 AS n"), "--database", "--database-url", url)
    assert plain.stdout.splitlines() == [
        f"error    --database-url: {problem['message']}",
        "0 queries: 1 error, 0 warnings, 0 notes",
    ]


def test_options_that_need_a_database_are_rejected_without_it(check: Callable[..., Result]) -> None:
    for options, message in ((["--database"], "POLLER_DATABASE_URL: is not set"),):
        done = check(query("SELECT 1 AS n"), *options)
        assert isinstance(done.exception, ConfigError)
        assert str(done.exception).startswith(message)


# --- Output for programs, with or without a database ----------------------------------------------------


def test_problems_of_files_are_json(check: Callable[..., Result]) -> None:
    done = check(query("SELECT 1 AS n", more="    intervall: 5m\n"), "--format", "json")

    assert done.exit_code == 2
    assert json.loads(done.stdout) == {
        "ok": False,
        "problems": [
            {
                "rule": "query-file", "level": "error", "query": None, "file": "q.yaml", "line": 4,
                "column": 5,
                "path": "queries[0].intervall",
                "message": "unknown key 'intervall'; did you mean 'interval'? known keys: name, sql, "
                "interval, schedule, timezone, timeout, max_age, max_series, overflow, group, requires, "
                "snapshot, estimate, targets, once_per_server, owner, parameters, max_cost, settings, "
                "metrics",
            }
        ],
        "queries": [],
    }  # fmt: skip
    assert json.loads(check(query("SELECT 1 AS n"), "--format", "json").stdout)["ok"] is True


def test_github_gets_an_escaped_command_per_problem(
    check: Callable[..., Result],
) -> None:
    done = check(query("SELECT 100 % AS n"), "--format", "github")
    assert done.exit_code == 2
    assert done.stdout == (
        "::error file=q.yaml,line=3,col=5,title=poller query-file::queries[0].sql: is not SQL that "
        "PostgreSQL "
        'understands: syntax error at or near "AS" (line 1, column 14 of sql)\n'
    )
    broken = check('  - name: "a%\\r\\nb: c"\n', "--format", "github").stdout.splitlines()
    assert all(line.startswith("::error file=q.yaml,line=") for line in broken)
    good = check(query("SELECT 1 AS n"), "--format", "github")
    assert (good.exit_code, good.stdout) == (0, "1 file, 1 query, 1 metric: no problems\n")


def test_names_and_places_are_escaped_for_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b: 100%.yaml").write_text("queries: 5\n")
    done = CliRunner().invoke(
        app, ["check", str(tmp_path / "a,b: 100%.yaml"), "nowhere", "--format", "github"]
    )
    assert done.stdout.splitlines() == [
        (
            "::error file=a%2Cb%3A 100%25.yaml,line=1,col=1,title=poller query-file::queries: is a "
            "number, not a "
            "list; begin each query with a dash"
        ),
        (
            "::error file=nowhere,title=poller query-file::does not exist; write a folder of query "
            "files, or a file"
        ),
    ]


SARIF: dict[str, Any] = {
    # The part of SARIF that code scanning supports (SARIF 2.1.0, sections 3.13 to 3.30), without other keys.
    "type": "object",
    "required": ["version", "runs", "$schema"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/$defs/run"}},
    },
    "$defs": {
        "message": {
            "type": "object",
            "required": ["text"],
            "additionalProperties": False,
            "properties": {"text": {"type": "string", "minLength": 1}},
        },
        "run": {
            "type": "object",
            "required": ["tool", "results"],
            "additionalProperties": False,
            "properties": {
                "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
                "tool": {
                    "type": "object",
                    "required": ["driver"],
                    "additionalProperties": False,
                    "properties": {"driver": {"$ref": "#/$defs/driver"}},
                },
            },
        },
        "driver": {
            "type": "object",
            "required": ["name", "version", "rules"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "version": {"type": "string", "minLength": 1},
                "rules": {
                    "type": "array",
                    "uniqueItems": True,
                    "items": {
                        "type": "object",
                        "required": ["id", "shortDescription"],
                        "additionalProperties": False,
                        "properties": {
                            "id": {"type": "string"},
                            "shortDescription": {"$ref": "#/$defs/message"},
                        },
                    },
                },
            },
        },
        "result": {
            "type": "object",
            "required": ["message", "ruleId", "ruleIndex", "level"],
            "additionalProperties": False,
            "properties": {
                "message": {"$ref": "#/$defs/message"},
                "ruleId": {"type": "string"},
                "ruleIndex": {"type": "integer", "minimum": 0},
                "level": {"enum": ["none", "note", "warning", "error"]},
                "locations": {"type": "array", "maxItems": 1, "items": {"$ref": "#/$defs/location"}},
            },
        },
        "location": {
            "type": "object",
            "required": ["physicalLocation"],
            "additionalProperties": False,
            "properties": {
                "physicalLocation": {
                    "type": "object",
                    "required": ["artifactLocation"],
                    "additionalProperties": False,
                    "properties": {
                        "artifactLocation": {
                            "type": "object",
                            "required": ["uri"],
                            "additionalProperties": False,
                            "properties": {"uri": {"type": "string", "pattern": r"^[^\s\\]+$"}},
                        },
                        "region": {
                            "type": "object",
                            "required": ["startLine"],
                            "additionalProperties": False,
                            "properties": {
                                "startLine": {"type": "integer", "minimum": 1},
                                "startColumn": {"type": "integer", "minimum": 1},
                            },
                        },
                    },
                }
            },
        },
    },
}


def sarif(done: Result) -> list[dict[str, Any]]:
    """The results of a valid SARIF log."""
    log = json.loads(done.stdout)
    Draft202012Validator(SARIF).validate(log)
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == list(RULES)
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    results: list[dict[str, Any]] = run["results"]
    return results


def test_sarif_names_the_place_of_each_problem(check: Callable[..., Result]) -> None:
    done = check(query("SELECT 1 AS n", more="    interval: x\n"), "--format", "sarif")
    (result,) = sarif(done)

    assert done.exit_code == 2
    assert (result["ruleId"], result["level"]) == ("query-file", "error")
    assert result["message"]["text"].startswith("queries[0].interval: 'x' is not a duration; ")
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "q.yaml"},
        "region": {"startLine": 4, "startColumn": 5},
    }
    assert sarif(check(query("SELECT 1 AS n"), "--format", "sarif")) == []


def test_a_file_name_becomes_a_uri_in_sarif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a b%.yaml").write_text("queries: 5\n")
    done = CliRunner().invoke(app, ["check", "a b%.yaml", "/nowhere to go", "--format", "sarif"])
    uris = [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in sarif(done)]

    assert uris == ["a%20b%25.yaml", "file:///nowhere%20to%20go"]


@pytest.mark.every_version
def test_sarif_and_github_include_the_errors_of_the_server(
    things: Database, check: Callable[..., Result]
) -> None:
    queries = query("SELECT 1 AS n FROM absent") + query(COUNT, name="b")
    options = ["--database", "--large-table", "1000", "--database-url", things.standby_dsn, "--format"]
    results = sarif(check(queries, *options, "sarif"))
    commands = check(queries, *options, "github").stdout.splitlines()

    assert [(result["ruleId"], result["level"]) for result in results] == [
        ("rejected", "error"),
        ("sequential-scan", "warning"),
    ]
    assert [line.partition("::queries")[0] for line in commands] == [
        "::error file=q.yaml,line=3,col=29,title=poller rejected",
        "::warning file=q.yaml,line=10,col=5,title=poller sequential-scan",
    ]


@pytest.mark.every_version
def test_planning_that_takes_too_long_is_cancelled(database: Database) -> None:
    """The planner runs STABLE functions, each for as long as a statement may take."""
    database.execute(
        "CREATE TABLE things (n int); INSERT INTO things SELECT generate_series(1, 1000); ANALYZE things;"
        "CREATE FUNCTION slow() RETURNS int STABLE LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(600); RETURN 1; END $$"
    )
    limits = TransactionLimits(lock_timeout=30.0, longest_snapshot=1.0)
    replica = Replica(lambda: database.primary_dsn, connect_timeout=30.0, limits=limits)
    took_longer = pytest.raises(PollError, match="the server took longer than 1s to plan the statements")

    with took_longer:
        inspect(
            replica.opener,
            lambda inspection: inspection.statements(["SELECT n FROM things WHERE n < slow()"]),
        )

    assert not replica.connection.is_open
    replica.close()


@pytest.mark.every_version
@pytest.mark.parametrize(("written", "suggested"), [("pg_buffercache", False), ("pgbench_branche", True)])
def test_only_a_similar_name_is_suggested(
    database: Database, check: Callable[..., Result], written: str, suggested: bool
) -> None:
    database.execute("CREATE TABLE pgbench_branches (n int)")
    done = check(
        query(f"SELECT count(*) AS n FROM {written}"), "--database", "--database-url", database.primary_dsn
    )
    assert f'relation "{written}" does not exist' in done.stdout
    assert ("did you mean 'pgbench_branches'?" in done.stdout) is suggested

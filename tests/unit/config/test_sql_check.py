"""A query is a single reading statement; anything else is named and refused before a server receives it."""

from __future__ import annotations

import pytest

from poller.config.queries.sql_check import MAX_LENGTH, is_ordered, statement_problem

INSTEAD = "; a query may only read: write SELECT, WITH, VALUES or TABLE"
NONE = "contains no statement; write one SELECT, WITH, VALUES or TABLE"
NO_SQL = "is not SQL that PostgreSQL understands:"
LOCKS = "locks rows (FOR UPDATE or FOR SHARE), which a standby rejects; omit that clause"
INTO = "contains SELECT INTO, which creates a table; omit INTO"
NO_TEXT = "contains an invalid character (NUL, or half of a surrogate pair); omit it"
A_COLUMN = "; if it is a column, write it without the table name"
TOO_DEEP = "is nested too deeply to be checked; reduce the nesting, or move parts of it to views"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM users",
        "SELECT 1;",
        "SELECT 1;;",
        "-- why\nSELECT /* what */ 1 -- how",
        "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT max(n) FROM t",
        "VALUES (1, 'a'), (2, 'b')",
        "TABLE users",
        "SHOW server_version",
        "SELECT 1 UNION SELECT 2 ORDER BY 1",
        "(SELECT 1)",
        "SELECT 'a; DELETE FROM users' AS text",
        "SELECT x FROM json_table('[1]', '$[*]' COLUMNS (x int PATH '$'))",
        f"SELECT 1 WHERE 1 IN ({', '.join(['1'] * 10_000)})",
        # The effects of a function are unknown; the READ ONLY transaction protects the server.
        "SELECT delete_everything()",
        "SELECT set_limit AS n FROM quotas",
    ],
)
def test_a_single_reading_statement_is_accepted(sql: str) -> None:
    assert statement_problem(sql) is None


@pytest.mark.parametrize(
    ("sql", "kind"),
    {
        "INSERT INTO t VALUES (1)": "INSERT",
        "WITH a AS (SELECT 1) INSERT INTO t TABLE a": "INSERT",
        "UPDATE t SET a = 1": "UPDATE",
        "DELETE FROM t": "DELETE",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE": "MERGE",
        "TRUNCATE t": "TRUNCATE",
        "COPY t TO STDOUT": "COPY",
        "/* SELECT */ create table t (a int)": "CREATE TABLE",
        "CREATE TABLE t AS SELECT 1": "CREATE TABLE",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1": "CREATE VIEW",
        "CREATE UNIQUE INDEX ON t (a)": "CREATE INDEX",
        "REFRESH MATERIALIZED VIEW v": "REFRESH MATERIALIZED VIEW",
        "ALTER TABLE t ADD a int": "ALTER TABLE",
        "ALTER SYSTEM SET x = 1": "ALTER SYSTEM",
        "DROP TABLE t": "DROP TABLE",
        "COMMENT ON TABLE t IS 'x'": "COMMENT",
        "GRANT SELECT ON t TO public": "GRANT",
        "BEGIN READ WRITE": "a transaction statement (BEGIN)",
        "COMMIT": "a transaction statement (COMMIT)",
        "SAVEPOINT s": "a transaction statement (SAVEPOINT)",
        "EXPLAIN ANALYZE SELECT 1": "EXPLAIN",
        "CALL p()": "CALL",
        "DO $$ BEGIN END $$": "DO",
        "SET x = 1": "SET",
        "RESET ALL": "RESET",
        "LOCK t": "LOCK",
        "VACUUM t": "VACUUM",
        "LISTEN c": "LISTEN",
        "PREPARE p AS SELECT 1": "PREPARE",
        "EXECUTE p": "EXECUTE",
        "DECLARE c CURSOR FOR SELECT 1": "DECLARE",
    }.items(),
)
def test_another_kind_of_statement_is_named(sql: str, kind: str) -> None:
    assert statement_problem(sql) == f"is {kind}{INSTEAD}"


@pytest.mark.parametrize(
    ("sql", "problem"),
    {
        "": NONE,
        " \n\t": NONE,
        ";": NONE,
        "-- nothing but a comment": NONE,
        "/* nor /* here */ */;": NONE,
        "SELECT 1; SELECT 2": "contains 2 statements; write one query per statement",
        "SELECT 1; COMMIT; CREATE TABLE x ()": ("contains 3 statements; write one query per statement"),
        "WITH a AS (DELETE FROM t RETURNING 1) SELECT * FROM a": (
            "contains DELETE inside WITH; a query may only read"
        ),
        "SELECT (WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT 1)": (
            "contains INSERT inside WITH; a query may only read"
        ),
        "SELECT 1 INTO t": INTO,
        "WITH a AS (SELECT 1 INTO t) SELECT 1": INTO,
        "SELECT a FROM t FOR UPDATE": LOCKS,
        "SELECT 1 WHERE 1 IN (SELECT a FROM t FOR KEY SHARE)": LOCKS,
        "SELECT $2": ("has a parameter $2; write :name and declare it in parameters, or write the value"),
        "SELECT 1 WHERE Pg_Advisory_Lock(1) IS NULL": (
            "calls pg_advisory_lock, which takes or releases locks; omit it: the poller takes no locks"
        ),
        "SELECT pg_catalog.pg_promote() AS n": "calls pg_promote, which acts on the server; omit it",
        "SELECT set_config('work_mem', '1GB', false)": (
            "calls set_config, which changes a setting of the session; write it under settings"
        ),
        "SELECT ('x'::text).pg_create_restore_point": (
            "calls pg_create_restore_point, which acts on the server; omit it"
        ),
        # The row of a function in FROM is its value, so that these are calls as well.
        "SELECT t.pg_terminate_backend::int AS n FROM pg_backend_pid() AS t": (
            "calls pg_terminate_backend, which acts on the server; omit it" + A_COLUMN
        ),
        "SELECT (t.ts_stat).nentry AS n FROM unnest(ARRAY['SELECT f()']) AS t": (
            "calls ts_stat, which runs SQL from a text; write that statement itself, so that it is checked"
            + A_COLUMN
        ),
        "SELECT * FROM ts_stat('SELECT to_tsvector(pg_switch_wal()::text)')": (
            "calls ts_stat, which runs SQL from a text; write that statement itself, so that it is checked"
        ),
        "SELEC 1": f'{NO_SQL} syntax error at or near "SELEC" (line 1, column 1 of sql)',
        "SELECT 'ééé',\n  1 FORM t x": f'{NO_SQL} syntax error at or near "t" (line 2, column 10 of sql)',
        "SELECT * FROM": f"{NO_SQL} syntax error at end of input (line 1, column 14 of sql)",
        "SELECT %s": f'{NO_SQL} syntax error at or near "%" (line 1, column 8 of sql)',
        "SELECT :id": (
            "has :id (line 1, column 8 of sql), which is not in parameters; "
            "add `id: [...]` to parameters, or write the value"
        ),
        "SELECT 'a\nb": (f'{NO_SQL} unterminated quoted string at or near "\'a b" (line 1, column 8 of sql)'),
        "SELECT '\0'": NO_TEXT,
        "SELECT 1\0; DROP TABLE t": NO_TEXT,
        "SELECT '\ud800'": NO_TEXT,
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000: TOO_DEEP,
        "SELECT " + "+".join(["1"] * 30_000): TOO_DEEP,
        "SELECT " + "(SELECT " * 1000 + "1" + ")" * 1000: TOO_DEEP,
        " "
        * (MAX_LENGTH + 1): f"has {MAX_LENGTH + 1} characters; write at most {MAX_LENGTH}, or make it a view",
    }.items(),
    ids=lambda value: ascii(value)[:40],
)
def test_anything_else_is_refused_with_its_reason(sql: str, problem: str) -> None:
    assert statement_problem(sql) == problem


def test_a_long_message_of_the_parser_is_cut() -> None:
    problem = statement_problem("SELECT '" + "x" * 10_000)
    assert problem is not None
    assert problem.endswith("... (line 1, column 8 of sql)")
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT n FROM t ORDER BY n", True),
        ("SELECT * FROM (SELECT n FROM t ORDER BY 1) x", False),
        ("WITH x AS (SELECT n FROM t ORDER BY 1) SELECT * FROM x", False),
        ("SELECT array_agg(n ORDER BY n), row_number() OVER (ORDER BY m) AS r FROM t GROUP BY m", False),
        ("(SELECT n FROM t ORDER BY 1) UNION ALL SELECT 2", False),
        ("SELECT 1 AS n UNION ALL SELECT 2 ORDER BY 1", True),
    ],
)
def test_only_an_order_by_of_the_whole_statement_orders_its_result(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered

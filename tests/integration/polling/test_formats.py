"""Values are correct for all output settings of the role, the database and the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from poller.polling.poll import to_result
from tests.bed.definitions import a_metric, a_query
from tests.bed.postgres import Database
from tests.bed.replica import a_replica

pytestmark = pytest.mark.every_version

VALUES = """\
SELECT 1000.1234::float8, 0.1::float8 + 0.2, 16777217.5::float8, 0.1::float4, timestamp '2026-02-01 03:04:05',
  '01/02/2026'::date, interval '-1 day 2 hours', '\\x00ff'::bytea, 'pg_class'::regclass::text,
  current_setting('xmlbinary')"""
WRITTEN = (
    b"1000.1234", b"0.30000000000000004", b"16777217.5", b"0.1", b"2026-02-01 03:04:05",
    b"2026-02-01", b"-1 days +02:00:00", b"\\x00ff", b"pg_class",
    b"base64",
)  # fmt: skip
SETTINGS = {
    "extra_float_digits": "-15",
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
}


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("digits", ["-15", "0", "3"])
def test_settings_of_the_database_do_not_change_the_text_of_a_value(
    database: Database, digits: str, snapshot: bool
) -> None:
    """The operator's order of day and month applies, because it defines `01/02/2026` in a query."""
    for name, value in {**SETTINGS, "extra_float_digits": digits}.items():
        database.execute(f"ALTER DATABASE {database.name} SET {name} = {value}")
    with closing(a_replica(database.primary_dsn)) as replica:
        (answer,) = replica.fetch([a_query(sql=VALUES, snapshot=snapshot)])
    assert answer.rows is not None, answer.error
    assert answer.rows.values == [WRITTEN]


@pytest.mark.parametrize("snapshot", [True, False])
def test_settings_of_the_database_change_neither_the_statement_nor_the_counted_rows(
    database: Database, snapshot: bool
) -> None:
    database.execute(
        "CREATE TABLE gi (a int[]);"
        "INSERT INTO gi SELECT ARRAY[1, n] FROM generate_series(1, 20000) AS n;"
        "CREATE INDEX ON gi USING gin (a)"
    )
    for name, value in {
        "standard_conforming_strings": "off",
        "gin_fuzzy_search_limit": "1000",
        "enable_seqscan": "off",
    }.items():
        database.execute(f"ALTER DATABASE {database.name} SET {name} = {value}")
    # If a backslash escapes, the rest of the line belongs to the first text.
    sql = r"SELECT '\' AS kind, count(*) AS n FROM gi WHERE a @> ARRAY[1] --'"
    with closing(a_replica(database.primary_dsn)) as replica:
        (answer,) = replica.fetch([a_query(sql=sql, snapshot=snapshot)])
    assert answer.rows is not None, answer.error
    assert answer.rows.values == [(b"\\", b"20000")]


@pytest.mark.parametrize("snapshot", [True, False])
def test_settings_of_the_database_do_not_change_the_meaning_of_an_expression(
    database: Database, snapshot: bool
) -> None:
    for name, value in {"transform_null_equals": "on", "array_nulls": "off", "xmloption": "document"}.items():
        database.execute(f"ALTER DATABASE {database.name} SET {name} = {value}")
    sql = """\
SELECT count(*) FILTER (WHERE name = NULL), count(*) FILTER (WHERE ('{a,NULL,b}'::text[])[2] IS NULL),
  current_setting('xmloption') FROM (VALUES (NULL::text), ('a')) AS v(name)"""
    with closing(a_replica(database.primary_dsn)) as replica:
        (answer,) = replica.fetch([a_query(sql=sql, snapshot=snapshot)])
    assert answer.rows is not None, answer.error
    assert answer.rows.values == [(b"0", b"2", b"content")]


@pytest.fixture
def ascii_dsn(database: Database) -> Iterator[str]:
    """A database that accepts any bytes as text, with a table whose name and one row are Latin-1."""
    name = f"{database.name}_ascii"
    database.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    dsn = make_conninfo(database.primary_dsn, dbname=name)
    try:
        with psycopg.connect(dsn, autocommit=True, client_encoding="SQL_ASCII") as connection:
            connection.execute(
                b"CREATE TABLE t (n int, kind text); CREATE TABLE stra\xdfe (n int);"
                b"INSERT INTO t VALUES (1, 'plain'), (2, 'M\xfcnchen'), (3, 'M\xc3\xbcnchen'); ANALYZE t"
            )
        yield dsn
    finally:
        database.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_value_that_is_not_utf_8_rejects_only_its_row(ascii_dsn: str, snapshot: bool) -> None:
    estimate = {"sql": "SELECT 9 AS n, 'x' AS kind", "above_cost": 1e6}
    query = a_query(
        sql="SELECT n, kind FROM t WHERE kind <> 'Zürich'",
        metrics=(a_metric(attribute_columns=["kind"]),),
        requires={"columns": {"t": ["n"]}},
        estimate=estimate,
        snapshot=snapshot,
    )
    with closing(a_replica(ascii_dsn)) as replica:
        result = to_result(replica.fetch([query])[0])
    assert result.outcome == "ok", result.error
    assert [(sample.value, sample.attributes["kind"]) for sample in result.samples] == [
        (1, "plain"),
        (3, "München"),
    ]
    assert result.rejected == {"not_utf8": 1}

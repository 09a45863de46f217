"""Types that the importers derive from SQL: the same as on a server, or unknown."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from poller.config.queries.sql_parameters import replace_parameters
from poller.model.numbers import NUMBERS
from poller.tools.importers.formats import FORMATS, Imported, ImportFormat, import_files
from poller.tools.importers.sql_columns import columns_of, kinds_of
from poller.tools.importers.sql_types import FUNCTIONS, RELATIONS, TYPES, SqlType
from tests.bed.imported import DEFAULTS, cases
from tests.bed.postgres import Site

_GROUPS: tuple[tuple[str, set[SqlType]], ...] = (
    ("timestamptz timestamp", {"timestamp", "temporal"}),
    ("time timetz", {"clock", "temporal"}),
    ("date", {"date", "temporal"}),
    ("interval", {"interval", "temporal"}),
    ("bool", {"boolean"}),
    ("int2 int4 int8 float4 float8 numeric", {"number"}),
    ("text varchar name bpchar char", {"text"}),
)
_RESULTS = {name: groups for names, groups in _GROUPS for name in names.split()}
"""Groups that a type of the server may belong to; all other types are in the group "other"."""


@pytest.fixture(scope="module")
def connection(site: Site) -> Iterator[psycopg.Connection]:
    with psycopg.connect(site.primary) as connection:
        yield connection
        connection.rollback()


@pytest.mark.every_version
def test_each_variant_of_a_listed_function_returns_the_listed_type(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "SELECT proname, typname FROM pg_proc JOIN pg_type ON pg_type.oid = prorettype"
        " WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%s)",
        (list(FUNCTIONS),),
    ).fetchall()

    wrong = [(name, kind) for name, kind in rows if FUNCTIONS[name] not in _RESULTS.get(kind, {"other"})]
    assert wrong == []
    assert {name for name, _ in rows} == set(FUNCTIONS)


@pytest.mark.every_version
def test_each_listed_type_exists_and_cannot_be_summed_unless_it_is_a_number(
    connection: psycopg.Connection,
) -> None:
    rows: dict[str, str] = dict(
        connection.execute(
            "SELECT typname, typcategory FROM pg_type WHERE typname = ANY(%s)", (list(TYPES),)
        ).fetchall()
    )

    assert set(rows) == set(TYPES)
    assert {name for name, category in rows.items() if category == "N"} == {
        name for name, type_ in TYPES.items() if type_ == "number"
    }


@pytest.mark.every_version
def test_columns_of_the_servers_views_have_the_listed_types(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "SELECT relname, attname, typname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " JOIN pg_type ON pg_type.oid = atttypid WHERE attnum > 0 AND relkind IN ('r', 'v')"
        " AND relnamespace = 'pg_catalog'::regnamespace"
        " AND (relname LIKE 'pg\\_stat\\_%%' OR relname = ANY(%s))",
        (list(RELATIONS),),
    ).fetchall()

    convertible = {"timestamptz", "timestamp", "interval", "bool"}
    on_server = {(view, column): _RESULTS[kind] for view, column, kind in rows if kind in convertible}
    assert len(on_server) > 50
    for (view, column), groups in on_server.items():
        assert RELATIONS.get(view, {}).get(column) in groups, (view, column)
    for view, column, kind in rows:
        listed = RELATIONS.get(view, {}).get(column)
        assert (listed is None) == (kind not in convertible) or (listed, kind) == ("text", "text")


def test_a_name_that_occurs_twice_has_no_type() -> None:
    assert kinds_of("SELECT now() AS x, 1 AS x, now() AS y") == {"y": "time"}
    assert kinds_of("SELECT x AS z FROM (SELECT now() AS x, 1 AS x) AS q") == {}


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT * FROM a) SELECT * FROM a",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM (WITH a AS (SELECT * FROM a, u) SELECT * FROM a) AS q",
        "WITH RECURSIVE b AS (SELECT * FROM a), a AS (SELECT now() AS x) SELECT * FROM b",
    ],
)
def test_a_cte_that_names_itself_or_a_later_one_does_not_recurse(sql: str) -> None:
    assert columns_of(sql) is None


def test_nested_ctes_cost_no_more_than_their_length() -> None:
    """Each CTE is analysed once, even if others refer to it several times."""
    depth = 40
    ctes = ", ".join(
        f"c{n} AS (SELECT * FROM c{n - 1} UNION ALL SELECT * FROM c{n - 1})" for n in range(1, depth)
    )

    (column,) = columns_of(f"WITH c0 AS (SELECT now() AS v), {ctes} SELECT * FROM c{depth - 1}") or []

    assert (column.name, column.kind) == ("v", "time")


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("SELECT last_vacuum AS v FROM pg_stat_user_tables, t", {"v": "time"}),
        ("SELECT t.last_vacuum AS v FROM pg_stat_user_tables, t", {}),
        ("SELECT stats_reset AS v FROM pg_stat_activity, t", {}),
        ("SELECT xact_start AS v FROM public.pg_stat_activity", {}),
        ("SELECT other.now() AS v, x::other.interval AS w", {}),
        ("SELECT age(x) AS v, age(now()) AS w, age(now(), x) AS z FROM t", {"w": "time", "z": "time"}),
        ("SELECT now() - x AS v, x - '2024-01-01'::date AS w FROM t", {"v": "time"}),
        ("SELECT active AS v FROM pg_replication_slots", {"v": "boolean"}),
        ("SELECT write_lag AS v FROM pg_stat_replication, pg_locks", {"v": "time"}),
        ("SELECT (SELECT x FROM u) AS v FROM (SELECT now() AS x) AS q", {}),
        ("SELECT (SELECT q.x FROM u) AS v FROM (SELECT now() AS x) AS q", {"v": "time"}),
        ("SELECT v FROM (SELECT now() AS v) AS q JOIN (SELECT now() AS v) AS r USING (v)", {"v": "time"}),
        ("SELECT * FROM (SELECT 1 AS a, now() AS v) AS q JOIN (SELECT 1 AS a) AS r USING (a)", {"v": "time"}),
    ],
)  # fmt: skip
def test_a_name_has_the_type_of_the_innermost_table_that_certainly_has_it(
    sql: str, kinds: dict[str, str]
) -> None:
    assert kinds_of(sql) == kinds


# --- random statements --------------------------------------------------------------------------------

_TABLE = """
CREATE TEMPORARY TABLE t AS SELECT 7 AS n, 0.73::float8 AS f, true AS b, now() - '3 days'::interval AS ts,
  '2024-02-03'::date AS d, '90 minutes'::interval AS i, 'x' AS s, '3'::xid AS x, NULL::int AS nothing
"""
_Sql = st.SearchStrategy[str]


def _written(template: str, *parts: _Sql) -> _Sql:
    return st.tuples(*parts).map(lambda values: template.format(*values))


_LEAVES: dict[str, list[str]] = {
    "number": [
        "1",
        "0.73",
        "2.5::float8",
        "n",
        "f",
        "t.f",
        "0",
        "nothing",
        "age(x)",
        "(SELECT count(*) FROM t)",
    ],
    "boolean": ["true", "b", "t.b", "n IS NULL", "EXISTS (SELECT 1)", "f IN (1, 2)", "'t'::bool"],
    "timestamp": ["now()", "ts", "current_timestamp", "'2024-01-01'::timestamptz", "to_timestamp(0)"],
    "date": ["current_date", "d", "'2024-05-06'::date"],
    "interval": ["i", "'1 hour'::interval", "now() - ts", "make_interval(hours => 2)", "age(ts)"],
    "text": ["'a'", "s", "'5'::text", "current_database()", "n::text"],
}


def _expressions(depth: int) -> dict[str, _Sql]:
    """Return SQL expressions over one row of `t` by type; the importer does not know the columns of `t`."""
    leaves = {kind: st.sampled_from(leaves) for kind, leaves in _LEAVES.items()}
    if depth == 0:
        return leaves
    of = _expressions(depth - 1)
    number, boolean, timestamp, date, interval, text = (of[kind] for kind in _LEAVES)
    deeper: dict[str, list[_Sql]] = {
        "number": [
            *(_written(f"({{}} {sign} {{}})", number, number) for sign in "+-*"),
            _written("({} - {})", date, date),
            _written("extract(epoch FROM {})", st.one_of(timestamp, interval, date)),
            _written("length({})", text),
            _written("(SELECT sum({}) FROM t)", number),
            _written("{}::int", boolean),
            _written("- {}", number),
            _written("{}::numeric", number),
        ],
        "boolean": [
            _written("({} AND NOT {})", boolean, boolean),
            _written("({} < {})", number, number),
            _written("({} = {})", text, text),
            _written("({} IS NOT DISTINCT FROM {})", timestamp, timestamp),
            _written("(SELECT bool_or({}) FROM t)", boolean),
        ],
        "timestamp": [
            _written("({} + {})", timestamp, interval),
            _written("({} - {})", timestamp, interval),
            _written("({} + {})", date, interval),
            _written("date_trunc('day', {})", timestamp),
        ],
        "date": [_written("({} + 1)", date), _written("{}::date", timestamp)],
        "interval": [
            _written("({} - {})", timestamp, timestamp),
            _written("({} + {})", interval, interval),
            _written("({} * 2)", interval),
            _written("age({}, {})", timestamp, timestamp),
            _written("(SELECT sum({}) FROM t)", interval),
            _written("(SELECT avg({}) FROM t)", interval),
        ],
        "text": [_written("({} || {})", text, text), _written("lower({})", text)],
    }
    for kind, same in of.items():
        alike = [
            _written("coalesce({}, {})", same, same),
            _written("coalesce(NULL, {})", same),
            _written("nullif({}, {})", same, same),
            _written("CASE WHEN {} THEN {} ELSE {} END", boolean, same, same),
            _written("CASE WHEN {} THEN {} END", boolean, same),
            _written("greatest({}, {})", same, same),
            _written("least({}, {}, NULL)", same, same),
            _written("(SELECT {})", same),
            _written("(SELECT inner_v FROM (SELECT {} AS inner_v) AS q)", same),
        ]
        if kind != "boolean":
            alike += [_written("(SELECT max({}) FROM t)", same), _written("(SELECT min({}) FROM t)", same)]
        deeper[kind] += alike
    return {kind: st.one_of(leaf, *deeper[kind]) for kind, leaf in leaves.items()}


def _statements() -> _Sql:
    """Return SQL statements with the single column `v`."""
    statements: list[_Sql] = []
    for kind, expression in _expressions(3).items():
        if kind == "text":
            continue
        plain = _written("SELECT {} AS v FROM t", expression)
        statements += [
            plain,
            plain,
            _written("SELECT v FROM ({}) AS q", plain),
            _written("SELECT q.v FROM ({}) AS q JOIN t ON true", plain),
            _written("SELECT w AS v FROM ({}) AS q(w)", plain),
            _written("WITH c AS ({}) SELECT * FROM c", plain),
            _written("WITH c AS ({}) SELECT * FROM c UNION ALL SELECT v FROM c", plain),
            _written("WITH c AS ({}) SELECT v FROM t AS c", _written("SELECT {} AS n", expression))
            if kind == "number"
            else _written("WITH RECURSIVE c(v) AS ({} UNION SELECT v FROM c) SELECT * FROM c", plain),
            _written("{} UNION ALL {}", plain, plain),
            _written("SELECT v FROM (SELECT NULL AS v UNION ALL {}) AS q", plain),
            _written("SELECT v FROM t, LATERAL (SELECT {} AS v) AS q", expression),
            _written("SELECT v FROM t, LATERAL (VALUES (NULL), ({})) AS q(v)", expression),
            _written(
                "SELECT xact_start AS v FROM (SELECT {} AS xact_start FROM t) AS pg_stat_activity", expression
            ),
        ]
        if kind != "boolean":
            statements.append(_written("SELECT max(v) AS v FROM ({}) AS q", plain))
        if kind in ("timestamp", "interval", "date"):
            statements.append(_written("SELECT extract(epoch FROM v) AS v FROM ({}) AS q", plain))
    statements += [
        st.sampled_from(
            (
                "SELECT pg_postmaster_start_time AS v FROM pg_postmaster_start_time()",
                "SELECT now() - started AS v FROM pg_postmaster_start_time() AS started",
                "SELECT v FROM generate_series(1, 3) AS v",
                "SELECT v FROM generate_series(now(), now() + '2 days', '1 day') AS v",
                "SELECT v FROM json_to_record('{\"v\": 5}') AS r(v int)",
                'SELECT v FROM json_to_record(\'{"v": "2024-01-01"}\') AS r(v date)',
                "SELECT o AS v FROM unnest('{a,b}'::text[]) WITH ORDINALITY AS u(a, o)",
                "SELECT max(age(datfrozenxid)) AS v FROM pg_database",
                "SELECT sum(CASE WHEN state = 'active' THEN 1 ELSE 0 END) AS v FROM pg_stat_activity",
                "SELECT max(now() - backend_start) AS v FROM pg_stat_activity",
                "SELECT max(coalesce(extract(epoch FROM backend_start), 0)) AS v FROM pg_stat_activity",
                "SELECT lower(r) AS v FROM (SELECT int4range(2, 5) AS r) AS q",
                "SELECT upper(tstzrange(now(), now() + '1 h')) AS v",
                "SELECT age(x) AS v FROM t",
                "SELECT ~n AS v FROM t",
                "SELECT @ f AS v FROM t",
                "SELECT (ARRAY[now()])[1] AS v",
                "SELECT ('{5}'::int[])[1] AS v",
                "SELECT array_length(ARRAY[now()]::timestamptz[], 1) AS v",
                "SELECT (SELECT count(*) FROM t WHERE ts < now()) AS v",
            )
        )
    ]
    return st.one_of(statements)


def _imported(
    folder: Path, form: ImportFormat, sql: str, column: str = "{usage: GAUGE, description: V.}"
) -> Imported:
    file = folder / "queries.yaml"
    file.write_text(f"q:\n  query: |-\n    {sql}\n  metrics:\n    - v: {column}\n", encoding="utf-8")
    return import_files(form, [file], DEFAULTS)


def _as_numbers(connection: psycopg.Connection, sql: str) -> tuple[str, list[Decimal | None]]:
    """Return the type of the column `v`, and its values as the original tool exports them."""
    rows = connection.execute(
        f"SELECT pg_typeof(v)::text, v::text FROM ({sql}) AS original".encode()
    ).fetchall()
    kind = rows[0][0]
    if kind == "boolean":
        return kind, [None if text is None else Decimal(text == "true") for _, text in rows]
    if kind.startswith(("time", "date", "interval")):
        to_seconds = f"SELECT extract(epoch FROM %s::{kind})".encode()
        values = [connection.execute(to_seconds, (text,)).fetchone() for _, text in rows]
        return kind, [row[0] if row else None for row in values]
    if kind in ("integer", "bigint", "smallint", "numeric", "double precision", "real"):
        return kind, [None if text is None else Decimal(text) for _, text in rows]
    return kind, []


@pytest.mark.every_version
@settings(max_examples=200)
@example(sql="SELECT nullif(0.73::float8, 0) AS v FROM t")
@example(sql="SELECT coalesce(nullif(f, 0), 0) AS v FROM t")
@example(sql="SELECT CASE WHEN b THEN nullif(f, 0) END AS v FROM t")
@example(sql="SELECT max(age(datfrozenxid)) AS v FROM pg_database")
@example(sql="SELECT xact_start AS v FROM (SELECT 5 AS xact_start FROM pg_stat_activity) AS q")
@example(sql="WITH c AS (SELECT now() AS v) SELECT * FROM c UNION SELECT * FROM c")
@example(sql="SELECT pg_postmaster_start_time AS v FROM pg_postmaster_start_time()")
@example(sql="SELECT ~n AS v FROM t")
@example(sql="SELECT (ARRAY[now()]::timestamptz[])[1] AS v")
@example(sql="SELECT lower(int4range(2, 5)) AS v")
@example(sql="SELECT current_date - d AS v FROM t")
@given(sql=_statements())
def test_an_imported_value_is_the_original_value_or_reported(
    connection: psycopg.Connection, folder: Path, sql: str
) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(_TABLE)
        try:
            kind, expected = _as_numbers(connection, sql)
        except psycopg.Error:
            reject()
        imported = _imported(folder, "postgres_exporter", sql)

        if not imported.drafts:
            assert not expected, f"{kind} is not in the imported query: {sql}"
            assert imported.losses.counts[0] > 0
            return
        (query,) = (draft.data() for draft in imported.drafts)
        cursor = connection.execute(query["sql"].encode())
        (position,) = (n for n, column in enumerate(cursor.description or ()) if column.name == "v")
        values = [row[position] for row in cursor]
        if (cursor.description or ())[position].type_code not in NUMBERS:
            assert query["sql"] == sql, "a poll reports that it is not a number"
            assert expected == [] or kind not in ("integer", "bigint", "numeric", "double precision"), sql
            return
        assert _sorted(None if value is None else Decimal(str(value)) for value in values) == _sorted(
            expected
        ), sql


@pytest.mark.every_version
@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT nullif(0.73::float8, 0) AS v", "1.46"),
        ("SELECT coalesce(nullif(0.73::float8, 0), 1) AS v", "1.46"),
        ("SELECT CASE WHEN true THEN nullif(0.73, 0) ELSE 1 END AS v", "1.46"),
        ("SELECT nullif(1, 1) AS v", "6"),
        ("SELECT nullif(true, false) AS v", "1"),
        ("SELECT greatest('2 s'::interval, '1 s') AS v", "2"),
        ("SELECT age('5'::xid) - age('3'::xid) AS v", "-4"),
    ],
)
def test_a_scale_multiplies_numbers_and_nothing_else(
    connection: psycopg.Connection, folder: Path, sql: str, value: str
) -> None:
    imported = _imported(folder, "pg_exporter", sql, "{usage: GAUGE, description: V., scale: 2, default: 3}")
    (query,) = (draft.data() for draft in imported.drafts)

    rows = connection.execute(query["sql"].encode()).fetchall()

    assert [Decimal(str(row[0])) for row in rows] == [Decimal(value)]


def test_a_scale_of_a_column_of_unknown_type_is_reported(folder: Path) -> None:
    column = "{usage: GAUGE, description: V., scale: 2}"
    assert "need a number" not in str(_imported(folder, "pg_exporter", "SELECT 1 AS v", column).losses)
    assert "need a number" in str(_imported(folder, "pg_exporter", "SELECT v FROM t", column).losses)


@pytest.mark.every_version
def test_query_exporter_exports_a_boolean_as_a_number(connection: psycopg.Connection, folder: Path) -> None:
    file = folder / "config.yaml"
    file.write_text(
        "databases: {d: {dsn: postgresql://h/d}}\nmetrics: {v: {type: gauge, description: V.}}\n"
        "queries: {q: {databases: [d], metrics: [v], sql: 'SELECT n > :least AS v FROM (VALUES (1)) AS t(n)',"
        " parameters: [{least: 0}]}}\n"
    )
    (draft,) = import_files("query-exporter", [file], DEFAULTS).drafts

    bound = replace_parameters(draft.data()["sql"], {"least": "0"})
    assert connection.execute(bound.encode()).fetchall() == [(1,)]


@pytest.mark.every_version
@pytest.mark.parametrize("form", FORMATS)
def test_imported_queries_have_no_column_that_causes_a_warning_of_check(
    connection: psycopg.Connection, folder: Path, form: ImportFormat
) -> None:
    """An example is epoch_ns of pgwatch, the time of its data points."""
    for case in cases():
        if case.form != form or "primary" not in case.sections:
            continue
        for name, text in case.sections.items():
            if name.endswith((".yaml", ".yml", ".conf", ".toml")):
                (folder / name).write_text(text, encoding="utf-8")
                drafts = import_files(form, [folder / name], DEFAULTS).drafts
        for query in (draft.data() for draft in drafts):
            used = {metric["value_column"] for metric in query["metrics"]}
            used |= {name for metric in query["metrics"] for name in metric.get("attribute_columns", [])}
            try:
                with connection.transaction(force_rollback=True):
                    described = connection.execute(query["sql"].encode()).description or []
            except psycopg.Error:
                continue  # a case of a query that fails
            if columns_of(query["sql"]) is not None:
                assert {column.name for column in described} == used


def _sorted(values: object) -> list[tuple[bool, Decimal]]:
    return sorted((value is None, value or Decimal(0)) for value in values)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imported")

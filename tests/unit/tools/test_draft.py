"""Query drafts from the text of a statement and the types of its columns."""

from __future__ import annotations

from typing import Any

import pytest

from poller.config.queries.sql_ast import (
    compared_columns,
    counted_columns,
    counts_a_whole_relation,
    first_relation,
    grouped_columns,
    identifier,
)
from poller.model.rows import Column, Rows
from poller.model.units import guessed_unit, unit_problem
from poller.postgres.inspect_relations import Type
from poller.tools.draft.from_statement import NoDraftError, closed, draft

TYPES = {
    20: Type("bigint", "N"), 1700: Type("numeric", "N"), 25: Type("text", "S"), 16: Type("boolean", "B"),
    1184: Type("timestamp with time zone", "D"), 9: Type("mood", "E", ("glad", "sad")),
}  # fmt: skip


def drafted(sql: str, name: str | None = None, **columns: int) -> dict[str, Any]:
    return draft(sql, [Column(key, oid) for key, oid in columns.items()], TYPES, name).query


def metric(name: str, unit: str, column: str, *attributes: str, description: str) -> dict[str, Any]:
    data: dict[str, Any] = {"name": name, "description": description, "unit": unit, "value_column": column}
    return {**data, "attribute_columns": list(attributes)} if attributes else data


def test_the_unit_of_a_count_is_its_relation() -> None:
    sql = "SELECT count(*) FROM app.messages"
    assert drafted(sql, count=20) == {
        "name": "messages_count",
        "sql": sql,
        "metrics": [metric("messages_count", "{message}", "count", description="Messages count.")],
    }


def test_each_number_is_a_metric_and_each_grouped_column_an_attribute() -> None:
    sql = "SELECT state, port, count(*) AS n, sum(size) AS stored_bytes FROM files GROUP BY state, port"
    query = drafted(sql, state=25, port=20, n=20, stored_bytes=1700)
    assert query["name"] == "files"
    assert query["metrics"] == [
        metric("files_count", "{file}", "n", "state", "port", description="Files count."),
        metric(
            "files_stored_bytes", "By", "stored_bytes", "state", "port", description="Files stored bytes."
        ),
    ]


def test_an_identifier_is_an_attribute_if_there_is_another_number() -> None:
    (only,) = drafted("SELECT tenant_id, depth FROM queues", tenant_id=20, depth=20)["metrics"]
    assert (only["value_column"], only["attribute_columns"]) == ("depth", ["tenant_id"])
    (alone,) = drafted("SELECT max(id) AS id FROM queues", id=20)["metrics"]
    assert alone["value_column"] == "id"


def test_the_option_name_applies_to_the_query_and_its_metric() -> None:
    single = drafted("SELECT 1 AS a", "jobs-now", a=20)
    assert (single["name"], single["metrics"][0]["name"]) == ("jobs-now", "jobs_now")
    several = drafted("SELECT 1 AS a, 2 AS b", "jobs", a=20, b=20)
    assert [metric["name"] for metric in several["metrics"]] == ["jobs_a", "jobs_b"]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (
            {"state": 25, "at": 1184},
            ("no column of the result is a number (state is text, at is timestamp with "
            "time zone); "
            "wrap the expression of at: extract(epoch FROM ...) AS at, or cast one, or add count(*) AS n"),
        ),
        (
            {"up": 16},
            ("no column of the result is a number (up is boolean); wrap the expression of up: "
            "(...)::int AS up, or cast one, or add count(*) AS n"),
        ),
        ({"n": 20, "?column?": 25}, "column 2 of the result has no name; name it with AS"),
        (
            {"x": 99},
            ("no column of the result is a number (x is of an unknown type); cast one, or add "
            "count(*) AS n"),
        ),
    ],
)  # fmt: skip
def test_a_result_without_a_number_is_rejected_with_advice(columns: dict[str, int], why: str) -> None:
    with pytest.raises(NoDraftError) as caught:
        drafted("SELECT", None, **columns)
    assert str(caught.value) == why


def test_a_division_by_1024_yields_a_binary_unit() -> None:
    for by, unit in {"1000": "kBy", "1024": "KiBy", "(1024 * 2)": "KiBy", "1024.0": "KiBy"}.items():
        (data,) = drafted(f"SELECT sum(size) / {by} AS size_kb FROM files", size_kb=1700)["metrics"]
        assert data["unit"] == unit


def test_a_column_of_the_type_void_is_not_an_attribute() -> None:
    (data,) = drafted("SELECT pg_sleep(1), 1 AS n", pg_sleep=2278, n=20)["metrics"]
    assert "attribute_columns" not in data


def test_two_columns_of_the_same_name_are_rejected() -> None:
    with pytest.raises(NoDraftError, match="column 'n' occurs 2 times; rename all but one with AS"):
        draft("SELECT 1 AS n, 2 AS n", [Column("n", 20), Column("n", 20)], TYPES)


def test_values_of_an_enum_or_boolean_are_listed_unless_a_row_is_null() -> None:
    columns = (Column("n", 20), Column("mood", 9), Column("live", 16), Column("state", 25))
    result = draft("SELECT", columns, TYPES, "x")
    rows = [(b"1", b"sad", b"t", b"a"), (b"2", b"glad", None, b"b")]
    (data,) = closed(result, Rows(columns, list(rows)), TYPES).query["metrics"]
    assert data["attribute_values"] == {"mood": ["glad", "sad"]}
    (data,) = closed(result, Rows(columns, list(rows[:1])), TYPES).query["metrics"]
    assert data["attribute_values"] == {"mood": ["glad", "sad"], "live": ["true", "false"]}


def test_a_time_as_an_attribute_causes_a_warning() -> None:
    (doubt,) = draft("SELECT", [Column("n", 20), Column("at", 1184)], TYPES, "x").doubts
    assert doubt.startswith(
        "attribute column 'at' is timestamp with time zone, and each value creates a separate series"
    )


@pytest.mark.parametrize(
    ("name", "thing", "unit"),
    [
        ("stored_bytes", "files", "By"), ("bytes", "files", "By"), ("index_size", "files", "By"),
        ("oldest_age", "jobs", "s"), ("replay_lag", "x", "s"), ("wait_ms", "x", "ms"),
        ("took_seconds", "x", "s"),
        ("full_percent", "x", "%"), ("hit_ratio", "x", "1"), ("count_by_b", "jobs", "{job}"),
        ("n", "entries", "{entry}"),
        ("n", "", "{row}"), ("n", "äpfel", "{row}"), ("status", "status", "{status}"),
    ],
)  # fmt: skip
def test_a_unit_is_derived_from_the_words_of_a_name(name: str, thing: str, unit: str) -> None:
    assert guessed_unit(name, thing) == unit
    assert unit_problem(unit) is None


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("state", "state"),
        ("order", '"order"'),
        ("user", '"user"'),
        ("Odd", '"Odd"'),
        ('a "b"', '"a ""b"""'),
        ("1a", '"1a"'),
    ],
)
def test_a_name_is_quoted_if_necessary(name: str, quoted: str) -> None:
    assert identifier(name) == quoted


# --- parts of a statement ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT a, count(*) FROM t GROUP BY a", {"a"}),
        ("SELECT a, b, count(*) FROM t GROUP BY 2, t.a", {"a", "b"}),
        ("SELECT lower(a) AS low, count(*) FROM t GROUP BY lower(a)", {"low"}),
        ("SELECT lower(a), count(*) FROM t GROUP BY lower(a)", {"lower"}),
        ("SELECT a::text AS x FROM t GROUP BY x, 9", {"x"}),
        ("SELECT a FROM t UNION SELECT b FROM t", set()),
        ("SHOW work_mem", set()),
        ("SELEC", set()),
    ],
)
def test_the_columns_that_a_statement_groups_by(sql: str, columns: set[str]) -> None:
    assert grouped_columns(sql) == columns


def test_grouped_columns_of_a_long_expression_are_detected() -> None:
    total = "+".join(["id"] * 300)  # the parse tree is nested once per operator

    assert grouped_columns(f"SELECT {total} AS k, count(*) AS n FROM t GROUP BY {total}") == {"k"}
    assert grouped_columns(f"SELECT {total} AS k, count(*) AS n FROM t GROUP BY {total} + 1") == set()


def test_counted_columns_and_first_relation_of_a_statement() -> None:
    assert counted_columns("SELECT count(*), count(a) AS b, sum(a) FROM t") == {"count", "b"}
    assert first_relation("SELECT 1 FROM app.t AS x JOIN u USING (a) LEFT JOIN v USING (a)") == "t"
    assert first_relation("SELECT 1 FROM (SELECT 1) AS t") is None
    assert first_relation("SELECT 1") is None


@pytest.mark.parametrize(
    ("sql", "whole"),
    [
        ("SELECT count(*) AS n FROM a.b", True),
        ("SELECT count(a) FROM b", False),
        ("SELECT count(*) FROM b WHERE c", False),
        ("SELECT count(*) FROM b, c", False),
        ("SELECT count(*) FROM b JOIN c USING (d)", False),
        ("SELECT count(*), 1 FROM b", False),
        ("SELECT count(*) FROM b LIMIT 1", False),
        ("SELECT sum(1) FROM b", False),
    ],
)
def test_whether_a_statement_counts_a_whole_relation(sql: str, whole: bool) -> None:
    assert counts_a_whole_relation(sql) is whole


@pytest.mark.parametrize(
    ("condition", "columns"),
    [
        ("((t.a > 7) AND ((t.b)::text = 'x'::text) AND (now() < t.c))", ["a", "b", "c"]),
        ("(a = ANY ('{x,y}'::text[]))", ["a"]),
        ("((a = 1) OR (b = 2))", []),
        ("(a = b)", []),
        ("(lower(a) = 'x'::text)", []),
        ("(a ~~ '%x%'::text)", []),
        ("(hashed SubPlan 1)", []),
    ],
)
def test_the_columns_that_an_index_could_find_rows_by(condition: str, columns: list[str]) -> None:
    assert compared_columns(condition) == columns

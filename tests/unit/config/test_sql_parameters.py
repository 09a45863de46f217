"""`:name` is a parameter if PostgreSQL's grammar allows an expression there, and only then."""

from __future__ import annotations

from typing import Any

import pgparse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.config.queries.sql_ast import nodes, parameter_columns
from poller.config.queries.sql_check import statement_problem
from poller.config.queries.sql_parameters import to_names, to_placeholders

NAMES = ("p", "state")


def placeholders(sql: str) -> dict[int, int]:
    """Return the number of each placeholder in the parse tree of `sql`, by its position in characters."""
    raw = sql.encode()
    return {
        len(raw[: node.get("location", 0)].decode()): node["number"]
        for node in nodes(pgparse.parse(sql), "ParamRef")
    }


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("SELECT :p", "SELECT $1"),
        ("SELECT :state, :p", "SELECT $2    , $1"),
        ("SELECT :p::int, (:p), -:p, 1+:p", "SELECT $1::int, ($1), -$1, 1+$1"),
        ("SELECT a[:p], a[:p:2], a[1: :p]", "SELECT a[$1], a[$1:2], a[1: $1]"),
        ("SELECT f(a := :p, b => :p)", "SELECT f(a := $1, b => $1)"),
        ("SELECT '€', \"ü\", :p", "SELECT '€', \"ü\", $1"),
        ("SELECT E'a'\n  'b\\':p', :p", "SELECT E'a'\n  'b\\':p', $1"),
        ("SELECT /* :p /* :p */ :p */ :p -- :p", "SELECT /* :p /* :p */ :p */ $1 -- :p"),
        ("SELECT $$ :p $$, $a$ $$ :p $b$ $a$, :p", "SELECT $$ :p $$, $a$ $$ :p $b$ $a$, $1"),
        ("SELECT 1 AS note$, :p AS b$, 2 AS c$", "SELECT 1 AS note$, $1 AS b$, 2 AS c$"),
    ],
)
def test_a_parameter_becomes_a_placeholder_of_the_same_length(sql: str, bound: str) -> None:
    assert to_placeholders(sql, NAMES) == bound
    assert len(bound) == len(sql)
    assert placeholders(bound)
    assert to_names(bound, NAMES) == sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ':p', ' :p', E' \\' :p', U&' :p', B'1', n' :p' AS \" :p\"",
        "SELECT '' ' :p', 'it''s :p'",
        "SELECT p::p, p ::p, a[1:p], a[p:state], a[(1):p], a[b[1]:p], a['1':p], a[\"p\":p]",
        "SELECT $x$ :p $x$, $ü$ :p $ü$ -- :p",
        "SELECT 1 /* :p */ -- :p",
        "SELECT :other, :pp, :P",
    ],
)
def test_other_colons_stay(sql: str) -> None:
    assert to_placeholders(sql, NAMES) == sql


PIECES = st.sampled_from(
    [
        ":p", ":state", "::int", ":", "'", "''", '"', "E'", "e'", "U&'", "\\", "\\'", "$$", "$a$", "$1", "$",
        "--", "/*", "*/", "\n", " ", ",", "(", ")", "[", "]", "1", "a", "é", "+", "*", "/", "-", "=",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join)
EXPRESSIONS = st.sampled_from(
    [":p", ":state::int", "(:p)", "-:p", "a[:p]", "a[1:p]", "a[:p::int:2]", "a.p", "1", "é"]
)
STRINGS = st.builds(
    str.format, st.sampled_from(["'{}'", "E'{}'", "U&'{}'", '"a{}"', "$${}$$", "$a${}$a$"]), TEXTS
)
SPACES = st.builds(str.format, st.sampled_from([" ", "\n", "/*{}*/", "--{}\n", ""]), TEXTS)
STATEMENTS = st.lists(
    st.tuples(SPACES, EXPRESSIONS | STRINGS, SPACES).map("".join), min_size=1, max_size=5
).map(",".join)


@settings(max_examples=500)
@given(STATEMENTS | TEXTS)
def test_the_grammar_finds_exactly_the_replaced_parameters(text: str) -> None:
    """In every text that PostgreSQL's grammar accepts: none in strings or comments, and none missed."""
    sql = f"SELECT {text}"
    bound = to_placeholders(sql, NAMES)
    assert len(bound) == len(sql)
    try:
        numbers = placeholders(bound)
    except (pgparse.PGQueryError, UnicodeError):
        return
    replaced = {at: number for at, number in numbers.items() if sql[at] == ":"}
    assert replaced.keys() == {at for at, letter in enumerate(bound) if letter != sql[at] and letter == "$"}
    for at, number in replaced.items():
        name = NAMES[number - 1]
        assert sql[at : at + 1 + len(name)] == f":{name}"
        assert bound[at : at + 1 + len(name)] == f"${number}".ljust(1 + len(name))


@given(TEXTS)
def test_without_declared_names_nothing_is_replaced(text: str) -> None:
    assert to_placeholders(text, ()) == text
    assert to_names(text, ()) == text


@pytest.mark.parametrize(
    "text", ["-" * 60_000, "'" * 60_001, "E'" + "\\" * 60_000, "/*" * 30_000, "$a" * 30_000]
)
def test_the_time_for_a_hostile_text_grows_with_its_length(text: str) -> None:
    """Each of them would take hours if the expression tried all ways to divide it."""
    assert to_placeholders(f"SELECT E'x'\n{text}", NAMES)


def test_a_mistake_has_its_position_in_the_written_statement() -> None:
    sql = "SELECT :state,\n  :state FORM t x"
    assert statement_problem(sql, NAMES[1:]) == (
        'is not SQL that PostgreSQL understands: syntax error at or near "t" (line 2, column 15 of sql)'
    )


def columns(sql: str) -> Any:
    return parameter_columns(to_placeholders(sql, NAMES))


def test_a_column_that_is_only_a_parameter_is_recognised() -> None:
    assert columns("SELECT :p AS a, :state::text::bytea AS b, :p || 'x' AS c, d, :state") == {
        "a": 1,
        "b": 2,
        "": 2,
    }

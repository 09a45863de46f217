"""Projection query around an imported statement that adds computed columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Container, Mapping, Sequence

import pgparse

from poller.config.queries.sql_ast import are_equal, without_end


def identifier(name: str) -> str:
    """Return a column name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """Return a value as an SQL literal: texts in quotes, and negative numbers in parentheses.

    Without parentheses `10 -` and `-1` are a comment, and `-1::text` casts 1.
    """
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(value).lower()
    if isinstance(value, int | float):
        text = repr(value) if math.isfinite(value) else f"'{value}'::float8"
        return f"({text})" if text.startswith("-") else text
    text = str(value).replace("'", "''")
    return f"E'{text}'".replace("\\", "\\\\") if "\\" in text else f"'{text}'"


def alias(name: str, existing: Container[str]) -> str:
    """Return a name for a computed column that is not in `existing`, in at most 63 bytes."""
    unique, number = name.encode()[:63].decode(errors="ignore"), 2
    while unique in existing:
        end = f"~{number}"
        unique, number = name.encode()[: 63 - len(end)].decode(errors="ignore") + end, number + 1
    return unique


class Columns:
    """Columns of a projection query: labels by their new names, and values."""

    def __init__(self, labels: Mapping[str, str], computed: Mapping[str, str] | None = None) -> None:
        """`labels` maps label names to inner columns; `computed` maps label names to expressions."""
        renamed = {name: identifier(column) for name, column in labels.items() if name != column}
        self.labels = (*labels, *(computed or {}))
        self.computed = {**renamed, **(computed or {})}
        self._names = set(self.labels)

    def value(self, column: str, expression: str = "") -> str:
        """Add a column for `expression`, or for `column` itself if it is empty; return its name."""
        name = alias(f"{column} value" if column in self._names else column, self._names)
        self._names.add(name)
        if expression or name != column:
            self.computed[name] = expression or identifier(column)
        return name


def statement(sql: str) -> str:
    """Return `sql` in the form for a query file: without text after the statement, and without indentation.

    Text that is not a single statement is returned whole; the model reports the problem.
    """
    return without_end(_normalize_spaces(sql).strip()).strip()


def project(sql: str, columns: Sequence[str], computed: Mapping[str, str], where: str = "") -> str:
    """Return a query for `columns` of `sql` (from `statement`); `computed` maps some of them to expressions.

    An expression refers to columns of the inner query. The inner query keeps its ORDER BY and LIMIT.
    """
    selected = ",\n  ".join(
        f"{computed[column]} AS {identifier(column)}" if column in computed else identifier(column)
        for column in columns
    )
    inner = _unless_changed(sql, textwrap.indent(sql, "  "))
    text = f"SELECT\n  {selected}\nFROM (\n{inner}\n) AS source"
    return f"{text}\nWHERE {where}" if where else text


def _normalize_spaces(sql: str) -> str:
    """Remove tabs, common indentation and trailing spaces, unless they are part of a string."""
    lines = sql.replace("\r\n", "\n").split("\n")
    return _unless_changed(sql, textwrap.dedent("\n".join(map(_without_tabs, lines))))


def _unless_changed(sql: str, formatted: str) -> str:
    """Return `formatted` if the parser reads it like `sql`, and `sql` otherwise."""
    try:
        trees = [[raw["stmt"] for raw in pgparse.parse(text)] for text in (sql, formatted)]
    except (pgparse.PGQueryError, RecursionError, UnicodeError):
        return sql
    return formatted if are_equal(*trees) else sql


def _without_tabs(line: str) -> str:
    """Expand tabs, except after the indentation of a line with quotes."""
    line = line.rstrip()
    if "'" not in line and '"' not in line:
        return line.expandtabs(4)
    rest = line.lstrip()
    return line[: len(line) - len(rest)].expandtabs(4) + rest

"""Projection query around an imported statement that adds computed columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Container, Mapping, Sequence

import pgparse


def identifier(name: str) -> str:
    """A column's name as SQL, whatever letters it has."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A value as SQL writes it; a text is quoted, whatever it holds."""
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else f"'{value}'::float8"
    text = str(value).replace("'", "''")
    return f"E'{text}'".replace("\\", "\\\\") if "\\" in text else f"'{text}'"


def alias(wanted: str, taken: Container[str]) -> str:
    """A name for a column that is computed, within the 63 bytes that PostgreSQL keeps of one."""
    name, number = wanted.encode()[:63].decode(errors="ignore"), 2
    unique = name
    while unique in taken:
        end = f"~{number}"
        unique, number = name.encode()[: 63 - len(end)].decode(errors="ignore") + end, number + 1
    return unique


class Columns:
    """The columns of a query around another one: labels by the name they get, and values."""

    def __init__(self, labels: Mapping[str, str], computed: Mapping[str, str] | None = None) -> None:
        """`labels` are the inner columns by the name of their label; `computed` are labels by expressions."""
        renamed = {name: identifier(column) for name, column in labels.items() if name != column}
        self.labels = (*labels, *(computed or {}))
        self.computed = {**renamed, **(computed or {})}
        self._taken = set(self.labels)

    def value(self, column: str, expression: str = "") -> str:
        """The name of the column that holds `expression`, or where there is none `column` itself."""
        name = alias(f"{column} value" if column in self._taken else column, self._taken)
        self._taken.add(name)
        if expression or name != column:
            self.computed[name] = expression or identifier(column)
        return name


def statement(sql: str) -> str:
    """`sql` as one would write it into a query file: without what is behind it, and without indentation.

    What is no single statement is left as it is; the model says what is wrong with it.
    """
    sql = _evened(sql).strip()
    try:
        statements = pgparse.parse(sql)
    except (pgparse.PGQueryError, RecursionError, UnicodeError):
        return sql
    if not statements:
        return ""
    if len(statements) != 1 or "stmt_len" not in statements[0]:
        return sql
    raw = sql.encode()
    end = statements[0].get("stmt_location", 0) + statements[0]["stmt_len"]
    return raw[:end].decode().strip()


def projected(sql: str, columns: Sequence[str], computed: Mapping[str, str], where: str = "") -> str:
    """`sql` (as `statement` gives it) with those `columns` of it; the `computed` ones by their expressions.

    An expression names the columns of the inner query. Order by and limit are the inner query's own.
    """
    told = ",\n  ".join(
        f"{computed[column]} AS {identifier(column)}" if column in computed else identifier(column)
        for column in columns
    )
    inner = sql if _holds_lines(sql) else textwrap.indent(sql, "  ")
    text = f"SELECT\n  {told}\nFROM (\n{inner}\n) AS source"
    return f"{text}\nWHERE {where}" if where else text


def _evened(sql: str) -> str:
    """Without tabs, common indentation and spaces at the ends of lines, unless a text may go over lines."""
    sql = sql.replace("\r\n", "\n")
    if _holds_lines(sql):
        return sql
    return textwrap.dedent("\n".join(map(_without_tabs, sql.split("\n"))))


def _without_tabs(line: str) -> str:
    """Those inside a quoted text stay."""
    line = line.rstrip()
    if "'" not in line and '"' not in line:
        return line.expandtabs(4)
    rest = line.lstrip()
    return line[: len(line) - len(rest)].expandtabs(4) + rest


def _holds_lines(sql: str) -> bool:
    return "$" in sql or any(line.count("'") % 2 or line.count('"') % 2 for line in sql.split("\n"))

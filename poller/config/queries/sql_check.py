"""Validation by PostgreSQL's grammar that a text is a single read-only SQL statement.

The grammar is libpg_query's (PostgreSQL 17), so an older server may still reject a statement that passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pgparse

from poller.config.queries.sql_functions import Call, acting, calls, walk
from poller.config.queries.sql_parameters import names_in, parameter_at, to_placeholders
from poller.model.text import did_you_mean

MAX_LENGTH = 65_536
"""Maximum characters of one statement. The parser recurses on the C stack, which far longer ones overflow."""

_READS = {"SelectStmt", "VariableShowStmt"}
_WRITES = {"InsertStmt": "INSERT", "UpdateStmt": "UPDATE", "DeleteStmt": "DELETE", "MergeStmt": "MERGE"}
_ALLOWED = "SELECT, WITH, VALUES or TABLE"
"""SHOW passes as well, but is not recommended: it returns text, which cannot become a metric."""
_ON_AN_OBJECT = {"CREATE", "ALTER", "DROP", "REFRESH", "REINDEX", "IMPORT", "SECURITY", "REASSIGN"}
_BEFORE_THE_OBJECT = {
    "OR", "REPLACE", "TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED", "UNIQUE", "RECURSIVE", "TRUSTED",
    "PROCEDURAL", "CONSTRAINT", "ON",
}  # fmt: skip
_BEGIN_AN_OBJECT = {"MATERIALIZED", "FOREIGN", "EVENT", "DEFAULT", "ACCESS", "TEXT", "OPERATOR", "USER"}
_GO_WITH_IT = {
    "VIEW",
    "TABLE",
    "SCHEMA",
    "DATA",
    "TRIGGER",
    "PRIVILEGES",
    "METHOD",
    "SEARCH",
    "CLASS",
    "FAMILY",
    "MAPPING",
}
_NOT_A_WORD = re.compile(r"--[^\r\n]*|/\*.*?\*/|[^A-Za-z]+", re.DOTALL)


def statement_problem(sql: str, parameters: Sequence[str] = ()) -> str | None:
    """Return why `sql` is not a read-only query that uses all `parameters`, with the fix; None if it is one.

    This is the first of several checks. The grammar does not show what a function does, so
    `SELECT delete_all()` passes here. The extended protocol, a READ ONLY transaction and the role's
    privileges are the next checks.
    """
    if len(sql) > MAX_LENGTH:
        return f"has {len(sql)} characters; write at most {MAX_LENGTH}, or make it a view"
    if "\0" in sql or any("\ud800" <= letter <= "\udfff" for letter in sql):
        return "contains an invalid character (NUL, or half of a surrogate pair); omit it"
    try:
        statements = pgparse.parse(to_placeholders(sql, parameters))
    except pgparse.PGQueryError as error:
        if "memory exhausted" in error.message:
            return _too_deep()
        if name := parameter_at(sql, error.position):
            return _no_parameter(sql, error.position, name, parameters)
        return (
            f"is not SQL that PostgreSQL understands: {_cut(error.message)} ({_place(sql, error.position)})"
        )
    except RecursionError:
        return _too_deep()
    if not statements:
        return f"contains no statement; write one {_ALLOWED}"
    if len(statements) > 1:
        return f"contains {len(statements)} statements; write one query per statement"
    ((kind, body),) = statements[0]["stmt"].items()
    if kind not in _READS:
        return f"is {_statement_kind(kind, sql)}; a query may only read: write {_ALLOWED}"
    for inner in chain.from_iterable(walk(body)):
        if inner in _WRITES:
            return f"contains {_WRITES[inner]} inside WITH; a query may only read"
        if inner == "intoClause":
            return "contains SELECT INTO, which creates a table; omit INTO"
        if inner == "lockingClause":
            return "locks rows (FOR UPDATE or FOR SHARE), which a standby rejects; omit that clause"
    if problem := _parameter_problem(sql, body, parameters):
        return problem
    return next((does for call in calls(body) if (does := _side_effect(call))), None)


def _no_parameter(sql: str, position: int, name: str, parameters: Sequence[str]) -> str:
    """Return the message for `:name` at `position`, if it is not a parameter of the statement."""
    place = _place(sql, position)
    if name in parameters:
        remedy = f"write :{name} after a space, without quotes, in place of a value"
        return f"has {name!r} after a colon ({place}), but not as a parameter; {remedy}"
    remedy = did_you_mean(name, parameters) or f"; add `{name}: [...]` to parameters, or write the value"
    others = [f":{other}" for other in names_in(sql) if other != name and other not in parameters]
    also = f"; nor are {', '.join(others)}" if others else ""
    return f"has :{name} ({place}), which is not in parameters{remedy}{also}"


def _parameter_problem(sql: str, body: Any, parameters: Sequence[str]) -> str | None:
    """Return the problem of a placeholder that the user wrote, or of a parameter without one."""
    text = sql.encode()
    used = set()
    for parent in walk(body):
        if node := parent.get("ParamRef"):
            number, at = node.get("number", 0), node.get("location", 0)
            if text[at : at + 1] != b":":
                return (
                    f"has a parameter ${number}; write :name and declare it in parameters, or write the value"
                )
            used.add(parameters[number - 1])
    if unused := [name for name in parameters if name not in used]:
        names = f"the parameter {unused[0]}" if len(unused) == 1 else f"the parameters {', '.join(unused)}"
        return f"does not use {names}; write :{unused[0]} in it, or remove it from parameters"
    return None


def _side_effect(call: Call) -> str | None:
    """Return why `call` is rejected, if its function has side effects.

    `t.name` may be a column, or the call `name(t)` if `t` is a function in FROM. Only the server can
    distinguish the two.
    """
    problem = acting(call.name)
    if problem is None or not call.of_row:
        return problem
    return f"{problem}; if it is a column, write it without the table name"


def is_ordered(sql: str) -> bool:
    """Return whether the query `sql` defines the order of its rows."""
    try:
        ((kind, body),) = pgparse.parse(sql)[0]["stmt"].items()
    except (pgparse.PGQueryError, RecursionError, LookupError, ValueError):
        return False
    return kind != "SelectStmt" or "sortClause" in body


def _statement_kind(kind: str, sql: str) -> str:
    """Return the kind of statement by its first words: `CREATE TABLE`, `a transaction statement (COMMIT)`."""
    if kind in _WRITES:
        return _WRITES[kind]  # its first word may be WITH
    tokens = [token.upper() for token in _NOT_A_WORD.sub(" ", sql[:2000]).split()]
    verb, rest = (tokens[0], tokens[1:]) if tokens else (kind.removesuffix("Stmt"), [])
    if kind == "TransactionStmt":
        return f"a transaction statement ({verb})"
    if verb not in _ON_AN_OBJECT:
        return verb
    rest = [token for token in rest[:8] if token not in _BEFORE_THE_OBJECT]
    pair = len(rest) > 1 and rest[0] in _BEGIN_AN_OBJECT and rest[1] in _GO_WITH_IT
    return " ".join([verb, *rest[: 2 if pair else 1]])


def _too_deep() -> str:
    return "is nested too deeply to be checked; reduce the nesting, or move parts of it to views"


def _cut(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= 100 else message[:97] + "..."


def _place(sql: str, position: int) -> str:
    before = sql[: max(position - 1, 0)]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - (before.rfind(chr(10)) + 1) + 1} of sql"

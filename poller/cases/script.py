"""Take the SQL of a fixture apart, so that each statement can be told by its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pgparse

_PASSED_OVER = {"TRANS_STMT_BEGIN", "TRANS_STMT_START", "TRANS_STMT_COMMIT"}
_OF_PSQL = re.compile(r"^\\(?:un)?restrict .*$", re.MULTILINE)
"""What pg_dump writes around a dump for psql (PostgreSQL manual, "psql", \\restrict)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, and the line of its script that it begins on."""

    line: int
    sql: str


def steps(sql: str) -> tuple[Step, ...]:
    """The statements of `sql`. BEGIN and COMMIT are passed over: a case is one transaction as it is.

    Raises ValueError with what is wrong where it is no SQL, would end the transaction by itself, or has the
    server run a program or write a file.
    """
    text = _OF_PSQL.sub("", sql)
    if "\0" in text:
        raise ValueError("holds a NUL character; leave it out")
    try:
        statements = pgparse.parse(text)
    except pgparse.PGQueryError as error:
        line = text[: max(error.position - 1, 0)].count("\n") + 1
        message = " ".join(error.message.split())[:200]
        raise ValueError(f"is not SQL that PostgreSQL understands: {message} (line {line} of it)") from None
    except RecursionError:
        raise ValueError("is nested too deeply to be checked; write it flatter") from None
    return tuple(_steps(text.encode(), statements))


def _steps(raw: bytes, statements: list[dict[str, Any]]) -> Iterator[Step]:
    for statement in statements:
        start = statement.get("stmt_location", 0)
        length = statement.get("stmt_len")
        body = raw[start : None if length is None else start + length].decode()
        line = raw[:start].count(b"\n") + 1 + body[: len(body) - len(body.lstrip())].count("\n")
        said = f"holds {' '.join(body.split())[:40]} (line {line} of it)"
        if why := _refused_copy(statement["stmt"].get("CopyStmt")):
            raise ValueError(f"{said}; {why}")
        transaction = statement["stmt"].get("TransactionStmt")
        if transaction is None:
            yield Step(line, body.strip())
        elif transaction["kind"] not in _PASSED_OVER:
            raise ValueError(f"{said}; a case is rolled back as a whole, so leave it out")


def _refused_copy(copy: dict[str, Any] | None) -> str | None:
    """Why a COPY cannot be part of a fixture, and what to write instead."""
    if copy is None or (copy.get("is_from") and copy.get("filename") and not copy.get("is_program")):
        return None
    if copy.get("is_from"):
        return (
            "no program is run for a case, and nothing is typed in; write the rows below `rows:` or `files:`"
        )
    return "a case makes rows and writes no file, which nobody would roll back; leave it out"

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

    Raises ValueError with what is wrong where it is no SQL, or would end the transaction by itself.
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
        transaction = statement["stmt"].get("TransactionStmt")
        if transaction is None:
            yield Step(line, body.strip())
        elif transaction["kind"] not in _PASSED_OVER:
            word = " ".join(body.split()).upper()[:40]
            raise ValueError(
                f"holds {word} (line {line} of it); a case is rolled back as a whole, so leave it out"
            )

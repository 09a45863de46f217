"""Explanation of a statement that the server rejects, with the position of the error."""

from __future__ import annotations

from poller.config.queries.locate import spot_in
from poller.model.errors import PollError
from poller.model.printable import one_line

_GATE = "under requires."


def refusal(error: PollError, sql: str, *, kept: bool = True) -> str:
    """Why the server refuses a statement: in its words, by code, with the place in it and what to do.

    One that is not `kept` in a file has no key that could expect it.
    """
    where = [error.sqlstate] if error.sqlstate else []
    if error.position is not None:
        line, column = spot_in(sql, error.position)
        where.append(f"line {line}, column {column} of sql")
    told = f"{error.message} ({', '.join(where)})" if where else error.message
    return f"{told}; {error.hint}" if error.hint and (kept or _GATE not in error.hint) else told


def marked(sql: str, position: int | None) -> str:
    """The line of `sql` that an error is about, and a mark below the place; empty where none is known."""
    if position is None:
        return ""
    line, column = spot_in(sql, position)
    shown = sql.split("\n")[line - 1].replace("\t", " ")
    before = one_line(shown[: column - 1])
    return f"  {before}{one_line(shown[column - 1 :])}\n  {' ' * len(before)}^\n"

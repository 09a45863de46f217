"""Explanation of a statement that the server rejects, with the position of the error."""

from __future__ import annotations

from poller.config.queries.query_file import spot_in
from poller.model.errors import PollError
from poller.model.printable import one_line

_GATE = "under requires."


def refusal(error: PollError, sql: str, *, in_file: bool = True) -> str:
    """The server's message, the SQLSTATE, the position in the statement, and the fix.

    Without `in_file`, the statement is in no query file, so a fix by `requires` is omitted.
    """
    where = [error.sqlstate] if error.sqlstate else []
    if error.position is not None:
        line, column = spot_in(sql, error.position)
        where.append(f"line {line}, column {column} of sql")
    message = f"{error.message} ({', '.join(where)})" if where else error.message
    return f"{message}; {error.hint}" if error.hint and (in_file or _GATE not in error.hint) else message


def marked(sql: str, position: int | None) -> str:
    """The line of `sql` with the error, and a mark below the position; empty without a position."""
    if position is None:
        return ""
    line, column = spot_in(sql, position)
    text = sql.split("\n")[line - 1].replace("\t", " ")
    before = one_line(text[: column - 1])
    return f"  {before}{one_line(text[column - 1 :])}\n  {' ' * len(before)}^\n"

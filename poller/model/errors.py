"""Exceptions that the poller raises on purpose, and what each one ends.

PollerError
+-- ConfigError   ends the process before its first poll (exit code 2); at a reload, only the reload
|   +-- StateInUseError   ends the daemon in the same way; `poller poll` continues without the folder
+-- PollError     ends one query's poll and nothing else; becomes `PollResult.error`
    +-- OverBudgetError   ends the current transaction; its unanswered queries run in a later one
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ErrorKind = Literal["unavailable", "timeout", "conflict", "rejected", "mismatch", "too_large", "cancelled"]
"""What went wrong, in the words of `error.type` on metric, span and log.

unavailable  no usable connection: refused, cut, authentication, server shutting down
timeout      the server's statement_timeout or lock_timeout, or our own deadline behind them
conflict     a standby cancelled the query for its recovery (SQLSTATE 40001, 40P01, 57P04)
rejected     the server refused the statement: syntax, missing relation, privilege, division by zero
mismatch     the rows came, but they are not what the definition declares
too_large    the result has more bytes than POLLER_MAX_RESULT_SIZE, and the query was cancelled
cancelled    we were told to stop and cancelled it ourselves
"""

ConflictKind = Literal[
    "snapshot", "lock", "buffer_pin", "tablespace", "deadlock", "database", "slot", "unknown"
]  # fmt: skip
"""What of the standby's recovery a query stood in the way of (PostgreSQL manual, "Handling Query Conflicts").

`unknown` where the server's messages are not in English: only their text tells.
"""


class PollerError(Exception):
    """The base of every failure this program raises on purpose."""


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a file, for programs; lines and columns count from 1."""

    file: str
    line: int | None = None
    column: int | None = None
    path: str = ""
    """The key, as `queries[0].sql`; empty where the file itself is meant."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.path}" if self.path else where


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: where it stands, what is wrong, what to write instead."""

    where: str
    """`file:line: path.to.key`, or the name of a variable."""
    what: str
    place: Place | None = field(default=None, compare=False)
    """The same as `where`, in parts; None where no file is at fault."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(PollerError):
    """The configuration cannot be used; carries all of its problems at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class StateInUseError(ConfigError):
    """Another process works with the state folder."""


class PollError(PollerError):
    """One query's poll ended without a result."""

    def __init__(
        self, kind: ErrorKind, message: str, *, sqlstate: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.sqlstate = sqlstate
        """Five characters (PostgreSQL manual, Appendix A), or None where no server said a word."""
        self.unsent = False
        """Whether it came before any query was sent: none is to blame then, and trying soon is safe."""
        self.hint = hint
        """What to do about it, when we know."""
        self.position: int | None = None
        """The character of the statement that it is about, from 1, where the server names one."""
        self.conflict: ConflictKind | None = None
        """Set exactly when the kind is `conflict`."""


class OverBudgetError(PollError):
    """The tick's transaction reached its longest life; what was not answered by then is nobody's failure."""

    def __init__(self) -> None:
        super().__init__(
            "timeout",
            "the tick took longer than its share of the interval and was cancelled",
            hint="make its queries cheaper, give some another group or a longer interval",
        )

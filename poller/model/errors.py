"""Exceptions of the poller, and the scope that each one ends.

PollerError
+-- ConfigError   ends the process before its first poll (exit code 2); at a reload, only the reload
|   +-- StateInUseError   ends the daemon in the same way; `poller poll` continues without the folder
+-- PollError     ends one query's poll and nothing else; becomes `PollResult.error`
    +-- OverBudgetError   ends the current transaction; its unanswered queries run in a later one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from poller.model.diagnostics import Diagnostic

ErrorKind = Literal["unavailable", "timeout", "conflict", "rejected", "mismatch", "too_large", "cancelled"]
"""Kind of failure, as in `error.type` of metrics, spans and log records.

unavailable  no usable connection: refused, cut, authentication, server shutting down
timeout      the server's statement_timeout or lock_timeout, or the poller's own deadline after them
conflict     a standby cancelled the query for its recovery (SQLSTATE 40001, 40P01, 57P04)
rejected     the server rejected the statement: syntax, missing relation, privilege, division by zero
mismatch     the result contradicts the query's definition
too_large    the result has more bytes than POLLER_MAX_RESULT_SIZE, and the query was cancelled
cancelled    the poller is stopping and cancelled the query itself
"""

ConflictKind = Literal[
    "snapshot", "lock", "buffer_pin", "tablespace", "deadlock", "database", "slot", "unknown"
]  # fmt: skip
"""The part of recovery that the query blocked on a standby (PostgreSQL manual, "Handling Query Conflicts").

`unknown` if the server's messages are not in English, because only their text contains the kind.
"""


class PollerError(Exception):
    """Base class of the exceptions of this program."""


class ConfigError(PollerError):
    """The configuration cannot be used; contains all of its problems."""

    def __init__(self, problems: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class StateInUseError(ConfigError):
    """Another process uses the state folder."""


class PollError(PollerError):
    """One query's poll ended without a result."""

    def __init__(
        self, kind: ErrorKind, message: str, *, sqlstate: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.sqlstate = sqlstate
        """Five characters (PostgreSQL manual, Appendix A), or None if the error is not from a server."""
        self.unsent = False
        """Whether the error came before any query was sent: no query caused it, and a retry is safe."""
        self.server_wide = False
        """Whether the whole server is unavailable, not only this database or role."""
        self.hint = hint
        """The fix, if known."""
        self.position: int | None = None
        """Position of the error in the statement, in characters from 1, if the server reports it."""
        self.setting: str | None = None
        """The query's PostgreSQL setting that the server refused; the query did not run."""
        self.conflict: ConflictKind | None = None
        """Set if and only if the kind is `conflict`."""


class OverBudgetError(PollError):
    """The tick's transaction reached its budget; its unanswered queries did not fail."""

    def __init__(self) -> None:
        super().__init__(
            "timeout",
            "the tick took longer than its share of the interval and was cancelled",
            hint="make its queries cheaper, give some another group or a longer interval",
        )

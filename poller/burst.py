"""Word the transactions that queries run in: read-only, bounded, leaving nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poller.model import QueryDefinition
from poller.pipeline import Statement

OPENING_TIMEOUT = 10.0
"""Seconds that each of our own looks at the server's catalogue may take."""
PATIENCE_SECONDS = 5.0
"""How much longer than the server's own timeout we wait before taking the server for dead."""
_IDLE_TIMEOUT = 10.0
_CONNECTION_CHECK = 2.0


@dataclass(frozen=True, slots=True)
class Guards:
    """What bounds every transaction; all in seconds.

    Everything is set by SET LOCAL or its function form and so ends with the transaction: a pooler may hand
    the session to somebody else (PostgreSQL manual, "Client Connection Defaults").
    """

    lock_timeout: float
    budget: float
    """Longest life of the transaction that queries share."""

    def opening(self, looks: Sequence[str]) -> list[Statement]:
        """Begin the shared transaction, take the looks it starts with, and set the savepoint `tick`.

        The first look must succeed. The others stand behind the savepoint, so that an error costs nothing.
        """
        first, *others = looks
        begin = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            self._bounds(OPENING_TIMEOUT, self.budget + PATIENCE_SECONDS),
            first,
            "SAVEPOINT tick",
        )
        return [_look(sql) for sql in begin] + [self.look(sql) for sql in others]

    def look(self, sql: str) -> Statement:
        """One more look of ours, in the shared transaction."""
        return _look(
            sql, "ROLLBACK TO SAVEPOINT tick", f"SET LOCAL statement_timeout = {_ms(OPENING_TIMEOUT)}"
        )

    def shared(self, query: QueryDefinition, sql: str) -> tuple[Statement]:
        """`sql` for `query`, in the shared transaction.

        The rollback before it undoes what the query before left, be it an error; and where the transaction
        is gone, the rollback fails and the query is not run, rather than run without its guards.
        """
        timeout = f"SET LOCAL statement_timeout = {_ms(query.timeout)}"
        return (_query(query, sql, "ROLLBACK TO SAVEPOINT tick", timeout),)

    def alone(self, query: QueryDefinition, sql: str) -> tuple[Statement, Statement]:
        """`sql` for `query` in a short transaction of its own, and that transaction's end."""
        bounds = self._bounds(query.timeout, query.timeout + PATIENCE_SECONDS)
        return _query(query, sql, "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY", bounds), commit()

    def _bounds(self, statement_timeout: float, transaction_timeout: float) -> str:
        """client_connection_check_interval (14 and later, not on Windows) ends a query whose poller has died.

        transaction_timeout (17 and later) does the same for what is left of a burst when the network is gone.
        """
        fixed = {
            "statement_timeout": statement_timeout,
            "lock_timeout": self.lock_timeout,
            "idle_in_transaction_session_timeout": _IDLE_TIMEOUT,
        }
        calls = ", ".join(f"set_config('{name}', '{_ms(value)}', true)" for name, value in fixed.items())
        return (
            f"SELECT {calls}, (SELECT count(set_config(name, CASE name WHEN 'transaction_timeout' "
            f"THEN '{_ms(transaction_timeout)}' ELSE '{_ms(_CONNECTION_CHECK)}' END, true)) FROM pg_settings "
            "WHERE name = 'transaction_timeout' "
            "OR name = 'client_connection_check_interval' AND version() !~* '(mingw|visual c)')"
        )


def budget(queries: Iterable[QueryDefinition]) -> float:
    """Longest life, in seconds, of the transaction that `queries` share.

    Half of the shortest interval, so that no snapshot is held all the time; but never less than the
    longest of their timeouts, as one query must be able to use its own.
    """
    queries = tuple(queries)
    half = min((query.interval for query in queries), default=0.0) / 2
    return max([half, *(query.timeout for query in queries)])


def commit() -> Statement:
    """End a transaction, whatever state it is in."""
    return Statement("COMMIT", PATIENCE_SECONDS)


def _query(query: QueryDefinition, sql: str, *after: str) -> Statement:
    return Statement(sql, query.timeout + PATIENCE_SECONDS, query.max_series, query.timeout, after)


def _look(sql: str, *after: str) -> Statement:
    return Statement(sql, OPENING_TIMEOUT + PATIENCE_SECONDS, timeout=OPENING_TIMEOUT, after=after)


def _ms(seconds: float) -> int:
    # 0 would mean "no timeout" to the server.
    return max(1, round(seconds * 1000))

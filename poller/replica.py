"""Ask the read replica the questions of one tick, on one connection, in one snapshot."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from poller.errors import PollError
from poller.gates import ServerFacts, facts_query, read_facts, unmet
from poller.model import Answer, QueryDefinition
from poller.pipeline import Pipeline, Reply, Statement, Waker
from poller.sqlstate import server_error

KEEP_CONNECTION_SECONDS = 60.0
"""A connection is kept between two ticks at most this far apart, else closed after the tick.

Reopening costs some 4 ms a tick and buys what an idle connection cannot have: a changed password, a new
address after a failover, and no socket that a firewall has forgotten.
"""

_PATIENCE_SECONDS = 5.0
"""How much longer than the server's own timeout we wait before taking the server for dead."""
_OPENING_TIMEOUT_MS = 10_000
_IDLE_TIMEOUT_MS = 10_000
_CONNECTION_CHECK_MS = 2_000


class Replica:
    """One PostgreSQL server, asked by one tick at a time.

    Reading only is enforced in layers: the extended protocol takes one statement a time,
    `default_transaction_read_only` is set for the session, every tick is a READ ONLY transaction, and every
    statement has a statement_timeout and a lock_timeout on the server (PostgreSQL manual, "Client Connection
    Defaults"). None of that stops a function with side effects outside the database: privileges do.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        connect_timeout: float,
        lock_timeout: float,
        application_name: str = "obscura-poller",
    ) -> None:
        """Remember how to connect; nothing is opened before the first tick.

        `conninfo` is called at every connect, so that a password may change under way. Times in seconds.
        """
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout
        self._lock_timeout = lock_timeout
        self._application_name = application_name
        self._connection: psycopg.Connection | None = None
        self._waker = Waker()

    def ask(self, queries: Sequence[QueryDefinition]) -> Iterator[Answer]:
        """Run `queries` in one REPEATABLE READ, READ ONLY transaction and yield an answer for each, in order.

        Two round trips, whatever the number of queries: one opens the transaction and reads the facts that
        `requires` needs, one carries every query between its own timeout and a rollback to a savepoint, so
        that an error costs no other query its result. Skipped queries are answered first, the others in
        order. Raises nothing: a failure is an answer, too.
        """
        owed = deque(queries)
        at = time.time()
        since = time.monotonic()
        try:
            pipeline, facts, at = self._open(queries)
            for query in queries:
                if reason := unmet(query.requires, facts):
                    owed.remove(query)
                    yield Answer(query, at, 0.0, skipped=reason)
            since = time.monotonic()
            for reply in self._burst(pipeline, tuple(owed)):
                yield Answer(owed.popleft(), at, reply.duration, reply.rows, reply.error)
                since = time.monotonic()
        except PollError as error:
            # Only the first of them kept the connection (or waited for one); the others never came to it.
            elapsed = time.monotonic() - since
            for query in owed:
                yield Answer(query, at, elapsed, error=error)
                elapsed = 0.0

    def rest(self, seconds: float) -> None:
        """Close the connection unless the next tick is due within KEEP_CONNECTION_SECONDS."""
        if seconds > KEEP_CONNECTION_SECONDS:
            self._hang_up()

    def interrupt(self) -> None:
        """End the tick under way from another thread; whatever runs on the server is cancelled there."""
        self._waker.raise_()

    def close(self) -> None:
        """Hang up. The replica is of no use afterwards."""
        self._hang_up()
        self._waker.close()

    def _open(self, queries: Sequence[QueryDefinition]) -> tuple[Pipeline, ServerFacts, float]:
        kept = self._connection is not None and not self._connection.closed
        try:
            try:
                return self._begin(queries)
            except PollError as error:
                if not kept or error.kind == "cancelled":
                    raise
                # The server may have gone and come back since the last tick; nothing has run yet: ask anew.
                self._hang_up()
                return self._begin(queries)
        except PollError as error:
            error.unsent = True
            raise

    def _begin(self, queries: Sequence[QueryDefinition]) -> tuple[Pipeline, ServerFacts, float]:
        pipeline = Pipeline(self._connected(), self._waker)
        timeout = _OPENING_TIMEOUT_MS / 1000
        opening = [
            Statement(sql, timeout + _PATIENCE_SECONDS, timeout=timeout)
            for sql in (
                "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                self._bounds(),
                facts_query(queries),
                "SAVEPOINT tick",
            )
        ]
        at = time.time()
        replies = list(pipeline.send(opening))
        if error := next((reply.error for reply in replies if reply.error), None):
            # Without its transaction the burst would run unguarded, so it must not run at all.
            self._hang_up()
            raise error
        rows = replies[2].rows
        answer = rows.values[0][0] if rows else None
        return pipeline, read_facts(answer or b""), at

    def _burst(self, pipeline: Pipeline, queries: Sequence[QueryDefinition]) -> Generator[Reply]:
        statements = [
            Statement(
                query.sql,
                query.timeout + _PATIENCE_SECONDS,
                query.max_series,
                query.timeout,
                # Undoes what the query before left, be it an error; and where the transaction is gone, this
                # fails and the query is not run, rather than run without its guards.
                after=(
                    "ROLLBACK TO SAVEPOINT tick",
                    f"SET LOCAL statement_timeout = {_milliseconds(query.timeout)}",
                ),
            )
            for query in queries
        ]
        end = Statement("COMMIT", _PATIENCE_SECONDS)
        # Closing an unfinished burst cancels on the server what of it has still to run.
        with closing(pipeline.send([*statements, end])) as replies:
            for _, reply in zip(queries, replies, strict=False):
                yield reply
            for _ in replies:
                pass  # COMMIT of a transaction that changed nothing: whatever it says, all is told

    def _bounds(self) -> str:
        """Bound the transaction by SET LOCAL's function form, which lasts as long as the transaction does.

        Nothing of it outlives COMMIT, so that a pooler may hand the session to somebody else.
        client_connection_check_interval (14 and later, not on Windows) ends a query whose poller has died.
        """
        fixed = {
            "statement_timeout": _OPENING_TIMEOUT_MS,
            "lock_timeout": _milliseconds(self._lock_timeout),
            "idle_in_transaction_session_timeout": _IDLE_TIMEOUT_MS,
        }
        calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in fixed.items())
        return (
            f"SELECT {calls}, (SELECT set_config(name, '{_CONNECTION_CHECK_MS}', true) FROM pg_settings "
            "WHERE name = 'client_connection_check_interval' AND version() !~* '(mingw|visual c)')"
        )

    def _connected(self) -> psycopg.Connection:
        if self._waker.raised:
            raise PollError("cancelled", "told to stop")
        if (
            self._connection is not None
            and self._connection.info.transaction_status != TransactionStatus.IDLE
        ):
            # A reader left in the middle of the last tick, and its snapshot is not this one's.
            self._hang_up()
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> psycopg.Connection:
        conninfo, given = self._described()
        # What is given here takes the place of libpq's own variable, so that has to be repeated.
        options = given.get("options") or os.environ.get("PGOPTIONS") or ""
        options = f"{options} -c default_transaction_read_only=on".strip()
        try:
            return psycopg.connect(
                conninfo,
                autocommit=True,
                options=options,
                client_encoding="UTF8",
                connect_timeout=given.get("connect_timeout") or max(2, round(self._connect_timeout)),
                application_name=given.get("application_name") or self._application_name,
            )
        except psycopg.Error as error:
            sqlstate = error.sqlstate
            message = " ".join(str(error).split())
            found = server_error(sqlstate, message)
            failure = PollError("unavailable", message, sqlstate=sqlstate, hint=found.hint)
        # Not inside `except`, nor `from` it: psycopg's error carries every parameter, the password as well.
        raise failure

    def _described(self) -> tuple[str, dict[str, Any]]:
        """The connection string, and its parts; libpq's complaint about one may quote a password."""
        try:
            conninfo = self._conninfo()
            given = conninfo_to_dict(conninfo)
        except OSError as error:
            raise PollError("unavailable", f"cannot read how to connect: {error}") from error
        except psycopg.ProgrammingError:
            conninfo, given = "", {"port": "unreadable"}
        if not re.fullmatch(r"[0-9, ]*", str(given.get("port") or "")):
            raise PollError(
                "unavailable",
                "libpq does not understand the connection string",
                hint="write postgresql://user:password@host:5432/database, and what is special in the "
                "password as %XX",
            )
        return conninfo, given

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _milliseconds(seconds: float) -> int:
    # 0 would mean "no timeout" to the server.
    return max(1, round(seconds * 1000))

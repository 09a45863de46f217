"""Pipeline of statements on one connection, with a separate reply of bounded size for each."""

from __future__ import annotations

import functools
import math
import select
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from poller.model.errors import OverBudgetError, PollError
from poller.model.query import NO_PARAMETERS, AttributeValue, Parameters
from poller.model.rows import Column, Limit, Row, RowCollector, Rows
from poller.model.text import quote, value_text
from poller.postgres.cancellation import CancelToken
from poller.postgres.charset import charset_of
from poller.postgres.relay import Relay
from poller.postgres.sql_text import set_config
from poller.postgres.sqlstate import one_line, server_error

_FATAL, _SYNC = ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_SYNC
_ROWS = {ExecStatus.TUPLES_CHUNK, ExecStatus.TUPLES_OK}
_COPY = {ExecStatus.COPY_OUT, ExecStatus.COPY_IN, ExecStatus.COPY_BOTH}
_CHUNK_ROWS = 256
_CANCEL_SECONDS = 2.0
_LATE = 0.25
"""Seconds after its timeout from which a server that has not reported it counts as hanging."""
_CANCEL_AGAIN_SECONDS = 0.05
_DEFAULT_LIMIT = Limit(1000)
MAX_RESULT_BYTES = 16 * 2**20
"""Maximum bytes of one statement's answer. At worst it is in memory three times: 48 MiB.

libpq's buffer, libpq's result and the poller's rows hold one copy each. The poller's copy may be three times
as large if it is converted to UTF-8.
"""
_TEXT = 25
"""OID of the type text, for the columns of parameters."""
_NO_MEMORY = b"cannot allocate memory for input buffer"
"""libpq's message if the host refuses it a buffer for a whole message."""


class Statement(NamedTuple):
    """One statement of a pipeline."""

    sql: str
    patience: float
    """Seconds without an answer after which the server counts as dead; above the server's own timeout."""
    limit: Limit = _DEFAULT_LIMIT
    """Rows that are kept; the rest is received, counted and discarded, so that memory stays bounded."""
    timeout: float | None = None
    """The statement_timeout in effect, in seconds, to distinguish the two meanings of SQLSTATE 57014."""
    preceding: tuple[str, ...] = ()
    """Statements that run before this one, under the same Sync; if one of them fails, this one is not run."""
    parameters: Parameters = NO_PARAMETERS
    """The statement runs once with each of them, in order, until an error. Their values are the last columns.

    `patience` and `timeout` are for one run; `limit` and the limit of the result's size for all together.
    """
    settings: Mapping[str, str] = MappingProxyType({})
    """PostgreSQL settings, by name, that are set after `preceding` under the same Sync, until the transaction
    ends or is rolled back to a savepoint."""
    describe: bool = False
    """Whether the statement is only prepared, not run: the reply has its columns and no rows."""


class Reply(NamedTuple):
    """Reply to one statement of a pipeline: exactly one of rows and error is set."""

    rows: Rows | None
    error: PollError | None
    duration: float
    """Seconds since the previous reply, which is how long the server worked on this statement."""

    def value(self) -> bytes:
        """Return the single JSON value of one of the poller's own statements; raises its PollError."""
        if self.error is not None:
            raise self.error
        return (self.rows.values[0][0] if self.rows else None) or b""


class _StatementFailure(NamedTuple):
    """The server's error for one statement, or for a statement that precedes it."""

    result: PGresult
    elapsed: float
    """Seconds since the run began."""
    setting: str | None = None
    """PostgreSQL setting that was being set."""
    parameters: Mapping[str, AttributeValue] = MappingProxyType({})
    """Parameters of the run."""


@dataclass(slots=True)
class _StatementResults:
    """Results of one statement that have arrived so far."""

    collector: RowCollector | None = None
    failure: _StatementFailure | None = None


class Pipeline:
    """libpq's pipeline mode with a Sync after every statement (PostgreSQL manual, "Pipeline Mode").

    The Sync separates the statements: an error aborts only the statements up to the next Sync. All statements
    are sent together, so they cost one network round trip, whatever their number.
    The extended query protocol is the first protection against writes: it rejects several statements in one
    text (SQLSTATE 42601), which `BEGIN READ ONLY` alone does not.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        cancel_token: CancelToken,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        self._connection = connection
        self._pgconn: PGconn = connection.pgconn
        self.charset = charset_of(self._pgconn.parameter_status(b"server_encoding"))
        """Encoding of statements and answers; the transaction has to set it on the server."""
        self._cancel_token = cancel_token
        self._max_bytes = max_result_bytes
        self._received = 0
        self._poll = select.poll()
        self._relay: Relay
        self._unanswered = 0
        self._unsent = False
        # Three deadlines, in monotonic seconds. `_wait` ends the run at the earlier of `_end` and `_dead`:
        #
        #   the run ends at                   before `_overdue`   after it
        #   `_end`: budget of the run         OverBudgetError     `unavailable`, or `timeout` (*)
        #   `_dead`: patience of a statement  `unavailable`       `unavailable`, or `timeout` (*)
        #
        # `_overdue` is when the server should have reported the statement_timeout.
        # (*) `timeout` if the server then cancels the statement at the poller's request: it works, but did
        # not enforce the timeout.
        self._end = math.inf
        self._dead = math.inf
        self._overdue = math.inf

    def send(self, statements: Sequence[Statement], budget: float = math.inf) -> Generator[Reply]:
        """Send all statements at once and yield one reply each, in order, as they arrive.

        Raises PollError if the connection cannot continue:

        - the server's own error, if it ended the session;
        - `unavailable`, if the connection is lost, the server does not answer in time, or no socket can be
          opened;
        - `rejected`, if a statement is COPY;
        - `cancelled`, if the token was cancelled;
        - `timeout`, if the run takes longer than `budget` seconds or a statement exceeds its own timeout;
        - `too_large`, if an answer exceeds the byte limit.

        In the last three cases the poller cancels the statements on the server. The connection is closed in
        all of them, and also if the caller stops before the last reply.
        """
        self._end = time.monotonic() + budget
        try:
            with closing(Relay(self._pgconn)) as self._relay:
                try:
                    yield from self._send(statements)
                except psycopg.OperationalError:
                    raise
                except BaseException as error:
                    # Close also if the caller stops early: the next run would read the remaining answers.
                    cancelled = self._stop_server()
                    if cancelled and isinstance(error, PollError) and error.kind == "unavailable":
                        raise _overrun() from None
                    raise
        except psycopg.OperationalError as error:
            self._connection.close()
            raise PollError("unavailable", one_line(str(error))) from error
        except OSError as error:
            self._connection.close()
            raise PollError("unavailable", f"cannot open a socket: {error.strerror}") from error

    def _send(self, statements: Sequence[Statement]) -> Generator[Reply]:
        pgconn = self._pgconn
        self._poll = select.poll()
        self._poll.register(self._cancel_token.fileno(), select.POLLIN)
        pgconn.nonblocking = 1
        pgconn.enter_pipeline_mode()
        refused: dict[int, PollError] = {}
        for number, statement in enumerate(statements):
            settings = [f"SELECT {set_config(name, value)}" for name, value in statement.settings.items()]
            texts = (*statement.preceding, *settings, statement.sql)
            try:
                *preliminaries, sql = [text.encode(self.charset.codec) for text in texts]
                runs = [
                    [value_text(value).encode(self.charset.codec) for value in values.values()]
                    for values in statement.parameters
                ]
            except UnicodeEncodeError as problem:
                refused[number] = _unencodable(problem, self.charset.encoding)
                if problem.object != statement.sql:
                    refused[number].position = None  # it is in a parameter or a setting
                continue
            for text in preliminaries:
                pgconn.send_query_params(text, None)
            if statement.describe:
                pgconn.send_prepare(b"", sql)
                pgconn.send_describe_prepared(b"")
            else:
                for values in runs:
                    # Without types: the server infers them, as it does for a quoted constant.
                    pgconn.send_query_params(sql, values or None)
                    if values:
                        # Without it, the server sends the answer only with the next Sync.
                        pgconn.send_flush_request()
            pgconn.pipeline_sync()
        self._unanswered = len(statements) - len(refused)
        since = time.monotonic()
        self._unsent = self._relay.flush()
        for number, statement in enumerate(statements):
            if number in refused:
                yield Reply(None, refused[number], 0.0)
                continue
            self._received = 0
            rows, error = self._read_reply(statement, since)
            self._unanswered -= 1
            now = time.monotonic()
            yield Reply(rows, error, now - since)
            since = now
        pgconn.exit_pipeline_mode()

    def _read_reply(self, statement: Statement, since: float) -> tuple[Rows | None, PollError | None]:
        """Read the results of one statement and of those before it, up to and including their Sync."""
        results = _StatementResults()
        self._begin_run(statement, since)
        self._read_preliminaries(statement, results, since)
        try:
            if statement.describe:
                self._read_description(statement, results, since)
            else:
                self._read_runs(statement, results, since)
            sync = self._next_result()
        except psycopg.OperationalError:
            if results.failure is None:
                raise
            sync = None
        complete = sync is not None and sync.status == _SYNC
        failure = results.failure
        if failure is None:
            if not complete:
                raise psycopg.OperationalError("the answers no longer match the statements")
            return results.collector.rows() if results.collector else Rows((), []), None
        if not complete:
            # An error without a Sync has ended the session.
            raise self._error_of(failure.result, 0.0, None)
        error = self._error_of(failure.result, failure.elapsed, statement.timeout, failure.setting)
        if failure.parameters and error.position is None:  # a position is in the statement itself
            values = ", ".join(f"{name} = {quote(value)}" for name, value in failure.parameters.items())
            error.message += f" (with {values})"
        return None, error

    def _read_preliminaries(self, statement: Statement, results: _StatementResults, since: float) -> None:
        """Read the results of `preceding`, of the settings, and of Prepare if there is one."""
        preceding, prepare = [None] * len(statement.preceding), [None] * statement.describe
        for setting in (*preceding, *statement.settings, *prepare):
            while (result := self._next_result()) is not None:
                if result.status == _FATAL:
                    results.failure = _StatementFailure(result, time.monotonic() - since, setting)

    def _read_description(self, statement: Statement, results: _StatementResults, since: float) -> None:
        """Read the columns of a statement that is not run."""
        while (result := self._next_result()) is not None:
            if result.status == ExecStatus.COMMAND_OK:
                results.collector = self._collector(statement, result)
            elif result.status == _FATAL:
                elapsed = time.monotonic() - since
                results.failure = _StatementFailure(result, elapsed, parameters=statement.parameters[0])

    def _read_runs(self, statement: Statement, results: _StatementResults, since: float) -> None:
        """Read the rows of all runs. After an error, the server skips the rest, but each has a result."""
        for number, parameters in enumerate(statement.parameters):
            if results.failure is None:
                if number:
                    since = time.monotonic()
                    self._begin_run(statement, since)
                self._pgconn.set_chunked_rows_mode(_CHUNK_ROWS)
            values = tuple([value_text(value).encode() for value in parameters.values()])
            while (result := self._next_result()) is not None:
                if result.status in _ROWS:
                    results.collector = results.collector or self._collector(statement, result)
                    rows = self._values(result)
                    results.collector.take([row + values for row in rows] if values else rows)
                elif result.status in _COPY:
                    # In pipeline mode, libpq can leave COPY only by closing the connection.
                    self._hang_up()
                    raise PollError("rejected", "COPY is not a query")
                elif result.status == _FATAL:
                    results.failure = _StatementFailure(
                        result, time.monotonic() - since, parameters=parameters
                    )

    def _begin_run(self, statement: Statement, now: float) -> None:
        """Note when the server is late with the next result, and when it counts as dead."""
        self._overdue = now + (math.inf if statement.timeout is None else statement.timeout + _LATE)
        self._dead = now + statement.patience

    def _collector(self, statement: Statement, result: PGresult) -> RowCollector:
        parameters = [Column(name, _TEXT) for name in statement.parameters[0]]
        return RowCollector(statement.limit, (*self._columns(result), *parameters))

    def _columns(self, result: PGresult) -> tuple[Column, ...]:
        codec = self.charset.codec
        return tuple([_column(result.fname(i) or b"", codec, result.ftype(i)) for i in range(result.nfields)])

    def _values(self, result: PGresult) -> list[Row]:
        value, fields = result.get_value, range(result.nfields)
        rows = [tuple([value(row, field) for field in fields]) for row in range(result.ntuples)]
        if self.charset.converts:
            to_utf8 = self.charset.to_utf8
            return [tuple([raw and to_utf8(raw) for raw in row]) for row in rows]
        return rows

    def _error_of(
        self, result: PGresult, elapsed: float, timeout: float | None, setting: str | None = None
    ) -> PollError:
        if _NO_MEMORY in result.error_message:
            return _too_large("there is no memory for a value of the result, or for an error message")

        def text(raw: bytes) -> str:
            try:
                # An error that ends the session between two transactions is in the session's own encoding.
                return raw.decode()
            except UnicodeDecodeError:
                return raw.decode(self.charset.codec, "replace")

        def field(which: DiagnosticField) -> str | None:
            raw = result.error_field(which)
            return text(raw) if raw else None

        message = field(DiagnosticField.MESSAGE_PRIMARY) or text(result.error_message).strip()
        if detail := field(DiagnosticField.MESSAGE_DETAIL):
            message = f"{message} ({detail})"
        hint = field(DiagnosticField.MESSAGE_HINT)
        if setting is not None:
            message = f"settings.{setting}: {message}"
            hint = hint or "correct or omit the setting, or name the server's version under requires"
        error = server_error(
            field(DiagnosticField.SQLSTATE), message, hint=hint, elapsed=elapsed, timeout=timeout
        )
        error.position = int(field(DiagnosticField.STATEMENT_POSITION) or 0) or None
        error.setting = setting
        return error

    def _next_result(self) -> PGresult | None:
        pgconn = self._pgconn
        while pgconn.is_busy():
            # All received bytes belong to this answer, because libpq has not parsed any later one.
            if self._received > self._max_bytes:
                raise _too_large(f"the result has more than {self._max_bytes:,} bytes")
            # Send and receive together: the server may be unable to read until the poller reads.
            ready = self._wait(select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if ready & ~select.POLLOUT:
                self._received += self._relay.receive()
            if self._unsent:
                self._unsent = self._relay.flush()
        return pgconn.get_result()

    def _wait(self, events: int) -> int:
        """Wait for the server's socket; return its ready events.

        Raises PollError `cancelled` or `unavailable`, and OverBudgetError; see the deadlines in `__init__`.
        """
        self._poll.register(self._relay, events)
        while True:
            left = min(self._dead, self._end) - time.monotonic()
            ready = dict(self._poll.poll(max(0.0, left) * 1000))
            if self._cancel_token.fileno() in ready:
                raise PollError("cancelled", "stop requested")
            if self._relay.fileno() in ready:
                return ready[self._relay.fileno()]
            if left <= 0 and time.monotonic() < self._overdue and self._end < self._dead:
                raise OverBudgetError
            if left <= 0:
                raise PollError(
                    "unavailable",
                    "the server did not answer in time, its own timeout included",
                    hint="the server or the network behind the connection hangs",
                )

    def _stop_server(self) -> bool:
        """Cancel all unanswered statements on the server, then close the connection.

        Return whether the cancel ended a statement that had exceeded its timeout.

        The server has all statements already, and a cancel ends only one statement. So the cancel is
        repeated until every answer has arrived. If the server is silent for too long, the closed connection
        has to end its work. The same applies to a large answer: the server sends all of it before it reacts
        to a cancel.
        """
        awaited = self._unanswered
        cancelled = False
        overdue = time.monotonic() > self._overdue
        deadline = time.monotonic() + _CANCEL_SECONDS
        try:
            while self._unanswered and self._pgconn.status == ConnStatus.OK and time.monotonic() < deadline:
                self._connection.cancel_safe(timeout=deadline - time.monotonic())
                if self._received > self._max_bytes:
                    break
                cancelled |= self._drain(_CANCEL_AGAIN_SECONDS, awaited)
        except psycopg.Error:
            pass  # The server is gone or does not answer: only closing the connection is left.
        finally:
            self._hang_up()
        return cancelled and overdue

    def _hang_up(self) -> None:
        self._relay.close()
        self._connection.close()

    def _drain(self, quiet: float, awaited: int) -> bool:
        """Discard answers until all have arrived, `quiet` seconds pass without data, or they are too large.

        Return whether a cancel ended the statement that ran while `awaited` answers were outstanding.
        """
        cancelled = False
        readable = select.poll()
        readable.register(self._relay, select.POLLIN)
        while self._unanswered and self._pgconn.status == ConnStatus.OK:
            while self._pgconn.is_busy():
                if self._received > self._max_bytes or not readable.poll(quiet * 1000):
                    return cancelled
                self._received += self._relay.receive()
            result = self._pgconn.get_result()
            if result is None:
                continue
            if result.status == _SYNC:
                self._unanswered -= 1
            elif self._unanswered == awaited and result.error_field(DiagnosticField.SQLSTATE) == b"57014":
                cancelled = True
        return cancelled


def _overrun() -> PollError:
    return PollError(
        "timeout",
        "it ran for longer than its timeout, which the server did not enforce, and the poller cancelled it",
        hint="a function that it calls may set statement_timeout; declare that function VOLATILE",
    )


def _too_large(message: str) -> PollError:
    return PollError(
        "too_large",
        message,
        hint="aggregate in SQL, select fewer rows or shorter columns, or raise POLLER_MAX_RESULT_SIZE",
    )


def _unencodable(error: UnicodeEncodeError, encoding: str) -> PollError:
    refused = PollError(
        "rejected",
        f"the database's encoding, {encoding}, has no character {error.object[error.start]!r}",
        sqlstate="22P05",
        hint="remove it from the statement, comments included",
    )
    refused.position = error.start + 1
    return refused


@functools.lru_cache(4096)
def _column(name: bytes, codec: str, oid: int) -> Column:
    return Column(name.decode(codec, "replace"), oid)

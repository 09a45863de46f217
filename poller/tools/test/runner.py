"""Test runner: fixture rows, the query as in a real poll, and a rollback of all changes."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from psycopg import sql

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollerError, PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer, EstimateReason, PollResult
from poller.polling.poll import to_result
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.pipeline import Pipeline
from poller.postgres.server_facts import facts_query, read_facts, unmet_requirement
from poller.postgres.transaction import TransactionLimits, TransactionStatements, formats_query
from poller.tools.test.case_file import Fixture, LoadedCase, Step

_RELATIONS = """
SELECT c.oid::pg_catalog.regclass::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
  AND n.nspname OPERATOR(pg_catalog.!~) '^pg_|^information_schema$'
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
  )
ORDER BY c.oid
"""
"""Relations that belong neither to the server nor to an extension. Only schemas of the server may begin with
pg_ (PostgreSQL manual, "The System Catalog Schema")."""

_NOW = "SELECT extract(epoch FROM pg_catalog.now())::double precision"


def require_empty(connection: psycopg.Connection) -> None:
    """Raise ConfigError if the database contains relations, because the DDL of a case would lock them.

    A case holds its ACCESS EXCLUSIVE locks until its rollback, and every other query waits for them.
    """
    names = [name for (name,) in connection.execute(_RELATIONS)]
    if not names:
        return
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    message = (
        f"contains the relation {names[0]}{more}, which a case would lock for other clients; write an empty "
        "database (createdb scratch), and create the tables with `schema:` or `schema_file:`"
    )
    raise ConfigError([invalid("--database", message)])


_CANCEL_SECONDS = 2.0
_CANCEL_AGAIN_SECONDS = 0.05


@contextmanager
def cancellable(connection: psycopg.Connection, cancel_token: CancelToken) -> Iterator[None]:
    """Cancel the running statement of `connection` as soon as the token is cancelled.

    Raises PollError `cancelled` then. A thread is needed, because COPY cannot run in a pipeline, and psycopg
    waits only for the server.
    """
    over, end = os.pipe()
    watcher = threading.Thread(target=_watch, args=(connection, cancel_token, over), name="stopping")
    watcher.start()
    try:
        yield
    except (psycopg.Error, PollerError):
        if not cancel_token.raised:
            raise
    finally:
        os.close(end)
        watcher.join()
        os.close(over)
    if cancel_token.raised:
        raise PollError("cancelled", "stop requested")


def _watch(connection: psycopg.Connection, cancel_token: CancelToken, over: int) -> None:
    ready, _, _ = select.select([cancel_token.fileno(), over], [], [])
    while over not in ready:
        # A cancel request ends one statement only, and has no effect between two statements.
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_SECONDS)
        ready, _, _ = select.select([over], [], [], _CANCEL_AGAIN_SECONDS)


_FIXTURE_SECONDS = 60
_LOCK_SECONDS = 5
_LIMITS = {
    "57014": (
        f"; the limit is {_FIXTURE_SECONDS} s per statement unless a preceding SET changes it: split the "
        "statement, create fewer rows, or write for example SET statement_timeout = '5min' before it"
    ),
    "55P03": (
        f"; the limit is {_LOCK_SECONDS} s unless a preceding SET changes it: write a database that no other "
        "client uses"
    ),
}
"""Advice for a statement that ran or waited too long, by SQLSTATE."""


class FixtureError(PollerError):
    """The fixture of a case cannot be created; the message has its place and the server's message."""


class CaseRunner:
    """A database that runs each case in a separate transaction and rolls it back."""

    def __init__(self, session: Connection, cancel_token: CancelToken) -> None:
        self._session = session
        self._cancel_token = cancel_token
        # Only the timeout of each query limits it here.
        self._statements = TransactionStatements(TransactionLimits(_LOCK_SECONDS), budget=0.0)

    def connect(self, *, empty: bool) -> None:
        """Connect; raises PollError if that fails.

        With `empty`, raises ConfigError if the database contains relations.
        """
        connection = self._session.connection()
        if not empty:
            return
        try:
            with cancellable(connection, self._cancel_token):
                require_empty(connection)
        except psycopg.Error as error:
            raise PollError("unavailable", _server_message(error)) from error

    def run(self, trial: LoadedCase) -> PollResult:
        """Poll the query on the rows of the case, and return the result.

        `now()` is constant within a case. Raises FixtureError if the rows cannot be created, and PollError if
        the server cannot be reached or the token was cancelled (`cancelled`).
        """
        connection = self._session.connection()
        try:
            with self._rolled_back(connection):
                with cancellable(connection, self._cancel_token):
                    _prepare(connection, trial.fixture)
                # The following statements are those of a poll, including the savepoint that it rolls back to.
                connection.execute("SET TRANSACTION READ ONLY")
                (now,) = connection.execute(_NOW).fetchone() or (0.0,)
                pipeline = Pipeline(connection, self._cancel_token)
                connection.execute(formats_query(pipeline.charset))
                connection.execute("SAVEPOINT tick")
                return to_result(self._answer(pipeline, trial, now))
        except psycopg.Error as error:
            raise PollError("unavailable", _server_message(error)) from error

    @contextmanager
    def _rolled_back(self, connection: psycopg.Connection) -> Iterator[None]:
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE")
        except psycopg.Error as error:
            raise PollError("rejected", f"the server accepts no rows: {_server_message(error)}") from error
        try:
            yield
        finally:
            # If the connection is lost, the server rolls back.
            if not connection.closed:
                connection.execute("ROLLBACK")

    def _answer(self, pipeline: Pipeline, trial: LoadedCase, now: float) -> Answer:
        query = trial.query
        (reply,) = pipeline.send(
            [self._statements.own_statement(facts_query([query], charset=pipeline.charset))]
        )
        if reply.error is not None:
            return Answer(query, now, reply.duration, error=reply.error)
        facts = read_facts(reply.value())
        if query.requires.role != "any":
            # Only a primary accepts rows, so the required role is assumed.
            facts = replace(facts, standby=query.requires.role == "standby")
        if skip := unmet_requirement(query.requires, facts):
            return Answer(query, now, 0.0, skipped=skip)
        (reply,) = pipeline.send(self._statements.shared(query, _statement(trial, query)))
        estimated: EstimateReason | None = "cost" if trial.case.estimate else None
        return Answer(query, now, reply.duration, reply.rows, reply.error, estimated=estimated)


def _statement(trial: LoadedCase, query: QueryDefinition) -> str:
    return query.estimate.sql if trial.case.estimate and query.estimate else query.sql


def _prepare(connection: psycopg.Connection, fixture: Fixture) -> None:
    connection.execute(f"SET LOCAL statement_timeout = '{_FIXTURE_SECONDS}s'")
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    ((path,),) = connection.execute("SHOW search_path").fetchall()
    for place, step in fixture.schema:
        _run(connection, place, step)
    # A dump sets the search_path to an empty string.
    connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))
    for place, table, rows in fixture.rows:
        _copy(connection, place, table, rows)
    for place, step in fixture.script:
        _run(connection, place, step)


def _run(connection: psycopg.Connection, place: str, step: Step) -> None:
    try:
        connection.execute(step.sql.encode())
    except psycopg.Error as error:
        position = int(error.diag.statement_position or 1)
        line = step.line + step.sql[: position - 1].count("\n")
        raise FixtureError(
            f"{place}: line {line} of the script: {_server_message(error)}{_limit(error)}"
        ) from error


def _copy(connection: psycopg.Connection, place: str, table: str, rows: str) -> None:
    header = next(csv.reader(io.StringIO(rows)), [])
    names = sql.SQL(", ").join(sql.Identifier(name.strip()) for name in header)
    target = sql.SQL(".").join(map(sql.Identifier, table.split(".")))
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv, HEADER)").format(target, names)
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(rows)
    except psycopg.Error as error:
        context = (error.diag.context or "").splitlines()
        where = f" ({context[0]})" if context else ""
        raise FixtureError(f"{place}: {_server_message(error)}{where}{_limit(error)}") from error


def _limit(error: psycopg.Error) -> str:
    return _LIMITS.get(error.sqlstate or "", "")


def _server_message(error: psycopg.Error) -> str:
    parts = [error.diag.message_primary or " ".join(str(error).split())]
    parts += [f"({detail})" for detail in (error.diag.message_detail,) if detail]
    parts += [f"- {hint}" for hint in (error.diag.message_hint,) if hint]
    return " ".join(parts)

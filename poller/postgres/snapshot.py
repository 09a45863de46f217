"""Opening of the transaction that the queries of a tick share, with the server's facts and lag."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psycopg

from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.postgres.admission import Admission
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.pipeline import Pipeline, Reply
from poller.postgres.replay_lag import Lag, LagMeter, lag_query
from poller.postgres.server_facts import ServerFacts, facts_query, read_facts
from poller.postgres.server_tracker import ServerInfo
from poller.postgres.sqlcomment import Tags, untagged
from poller.postgres.transaction import TransactionLimits, TransactionStatements, commonest_timeout

_OF_THE_SERVER = (None, "57P01", "57P02", "57P03", "53300")
"""SQLSTATEs that concern all databases of a server; None: the connection was lost."""
_SECOND_READING_SECONDS = 0.1
_LAG_WORTH_ANOTHER_READING = 1.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An open transaction, with the server's facts and replay lag."""

    pipeline: Pipeline
    statements: TransactionStatements
    facts: ServerFacts
    lag: Lag
    at: float


class SnapshotOpener:
    """Opens one transaction after the other and keeps data that the next opening needs.

    Every read-only transaction is opened here: those of polls and those that inspect statements. Only
    `poller test` opens others, because a test case writes its rows before it becomes read-only.
    """

    def __init__(
        self,
        connection: Connection,
        cancel_token: CancelToken,
        limits: TransactionLimits,
        admission: Admission,
        *,
        on_server_info: Callable[[ServerInfo], None] = lambda _: None,
        tags: Tags = untagged,
    ) -> None:
        """Store the settings; `admission` decides which facts are read.

        `on_server_info` is called when a transaction is open. `tags` returns the content of the comment on a
        query's SQL.
        """
        self.connection = connection
        self.admission = admission
        self.cancel_token = cancel_token
        self.limits = limits
        self._on_server_info = on_server_info
        self._tags = tags
        self._meter = LagMeter()
        self._excess: tuple[str, ...] = ()
        self._excess_at = -math.inf
        self._excess_of = ("", "")

    def open(
        self,
        queries: Sequence[QueryDefinition],
        *,
        budget: float | None = None,
        privileges: bool = False,
    ) -> Snapshot:
        """Open a transaction, on the open connection if it is usable; `facts` holds what `queries` require.

        The transaction may last `budget` seconds, by default as long as `queries` need. With `privileges`,
        or if `admission` is strict, the facts include the role's privileges beyond reading. Raises PollError,
        marked as `unsent`.
        """
        begin = functools.partial(self._begin, queries, budget, privileges=privileges)
        reused = self.connection.is_open
        try:
            try:
                opened = begin()
            except PollError as error:
                if not reused or error.kind == "cancelled":
                    raise
                # The server may have restarted since the last tick. No query has run yet, so connect again.
                self.connection.close()
                opened = begin()
            else:
                if reused and not self.connection.fits(standby=opened.facts.standby):
                    # The server's role changed, or libpq chose its fallback: libpq checks only at connect.
                    self.connection.close()
                    opened = begin()
        except PollError as error:
            error.unsent = True
            raise
        self._report_server(opened)
        return opened

    def _begin(
        self, queries: Sequence[QueryDefinition], budget: float | None, *, privileges: bool
    ) -> Snapshot:
        # Excess privileges require a scan of all of pg_class, and they change rarely.
        old = time.monotonic() - self._excess_at >= self.admission.excess_seconds
        privileges |= self.admission.strict and (old or not self.connection.is_open)
        connection = self.connection.connection()
        try:
            return self._begin_on(connection, queries, budget, privileges=privileges)
        except PollError as error:
            # PgBouncer refuses a database only here, with a SQLSTATE of its own.
            error.server_wide = error.kind == "unavailable" and error.sqlstate in _OF_THE_SERVER
            raise

    def _begin_on(
        self,
        connection: psycopg.Connection,
        queries: Sequence[QueryDefinition],
        budget: float | None,
        *,
        privileges: bool,
    ) -> Snapshot:
        limits = self.limits
        pipeline = Pipeline(connection, self.cancel_token, limits.max_result_bytes)
        statements = TransactionStatements(
            limits,
            limits.budget(queries) if budget is None else budget,
            self._tags,
            commonest_timeout(queries),
            pipeline.charset,
        )
        count_active = self.admission.count_active
        query = functools.partial(facts_query, queries, count_active=count_active, charset=pipeline.charset)
        opening = statements.opening(query(privileges=privileges))
        brief = self._meter.brief
        lag_statements = (
            [statements.own_statement(lag_query(brief=brief))] if self.admission.wants_lag else []
        )
        at = time.time()
        begin, bounds, facts, savepoint, *lags = pipeline.send([*opening, *lag_statements])
        for reply in (begin, bounds, facts, savepoint):
            if reply.error is not None:
                # Without its transaction, the burst would run without guards, so it must not run.
                self.connection.close()
                raise reply.error
        server_facts = self._facts(pipeline, statements, facts, query, privileges=privileges)
        if self.admission.judges_server:
            statements = replace(statements, server=server_facts.server)
        lag = self._lag(pipeline, statements, server_facts, *lags, brief=brief)
        return Snapshot(pipeline, statements, server_facts, lag, at)

    def _facts(
        self,
        pipeline: Pipeline,
        statements: TransactionStatements,
        reply: Reply,
        query: Callable[..., str],
        *,
        privileges: bool,
    ) -> ServerFacts:
        """Return the facts by the `reply` to `query`, with the excess privileges that were read last.

        `privileges` is whether the reply contains the excess privileges.
        """
        facts = read_facts(reply.value())
        if self.admission.strict and not privileges and _session_of(facts) != self._excess_of:
            # A pooler has switched to another server since the last tick.
            privileges = True
            (again,) = pipeline.send([statements.own_statement(query(privileges=True))])
            if again.error:
                self.connection.close()
            facts = read_facts(again.value())
        if privileges:
            self._excess, self._excess_at = facts.excess, time.monotonic()
            self._excess_of = _session_of(facts)
        return replace(facts, excess=self._excess)

    def _lag(
        self,
        pipeline: Pipeline,
        statements: TransactionStatements,
        facts: ServerFacts,
        reply: Reply | None = None,
        *,
        brief: bool,
    ) -> Lag:
        """Return the lag by the `reply` to its query; without one, it was not read."""
        if reply is None:
            return Lag(None, None, facts.standby, None, "it was not read")
        if brief and (reply.error or not self._meter.covers(reply.value())):
            (reply,) = pipeline.send([statements.own_statement(lag_query())])
        for number in (1, 2):
            if reply.error is not None:
                return Lag(None, None, facts.standby, None, f"reading it failed: {reply.error.message}")
            lag = self._meter.read(reply.value(), time.monotonic())
            if number == 2 or lag.seconds is None or lag.seconds < _LAG_WORTH_ANOTHER_READING:
                break
            # WAL that has just arrived counts as old as the last mark. This reading has set a newer mark.
            self.cancel_token.wait(_SECOND_READING_SECONDS)
            (reply,) = pipeline.send([statements.own_statement(lag_query())])
        return lag

    def _report_server(self, opened: Snapshot) -> None:
        host = self.connection.host
        if host is not None:
            lag = opened.lag
            server_info = ServerInfo(
                address=host.address,
                port=host.port,
                database=host.database,
                standby=opened.facts.standby,
                timeline=lag.timeline,
                lag=lag.seconds,
                data_age=lag.data_age,
                why=lag.why,
                at=time.monotonic(),
            )
            self._on_server_info(server_info)


def _session_of(facts: ServerFacts) -> tuple[str, str]:
    return facts.server, facts.session

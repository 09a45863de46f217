"""Opening of the transaction that the queries of a tick share, with the server's facts and lag."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.postgres.admission import Admission
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.pipeline import Pipeline, Reply
from poller.postgres.replay_lag import Lag, LagMeter, lag_query
from poller.postgres.server_facts import ServerFacts, facts_query, read_facts
from poller.postgres.server_tracker import ServerInfo
from poller.postgres.sqlcomment import Tags
from poller.postgres.transaction import TransactionLimits, budget, commonest_timeout

_SECOND_LOOK_SECONDS = 0.1
_LAG_WORTH_A_SECOND_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An open transaction, with the server's facts and replay lag."""

    pipeline: Pipeline
    limits: TransactionLimits
    facts: ServerFacts
    lag: Lag
    at: float


class SnapshotOpener:
    """Opens one transaction after the other and keeps data that the next opening needs."""

    def __init__(
        self,
        session: Connection,
        cancel_token: CancelToken,
        admission: Admission,
        lock_timeout: float,
        on_server_info: Callable[[ServerInfo], None],
        tags: Tags,
        max_result_bytes: int,
    ) -> None:
        """See `batch.Attempts`."""
        self._session = session
        self._cancel_token = cancel_token
        self._admission = admission
        self._lock_timeout = lock_timeout
        self._on_server_info = on_server_info
        self._tags = tags
        self._max_result_bytes = max_result_bytes
        self._meter = LagMeter()
        self._excess: tuple[str, ...] = ()
        self._excess_at = -math.inf
        self._excess_of = ("", "")

    def open(self, queries: Sequence[QueryDefinition]) -> Snapshot:
        """Open the shared transaction, on the open connection if it is usable.

        Raises PollError, marked as `unsent`.
        """
        reused = self._session.is_open
        try:
            try:
                opened = self._begin(queries)
            except PollError as error:
                if not reused or error.kind == "cancelled":
                    raise
                # The server may have restarted since the last tick. No query has run yet, so connect again.
                self._session.close()
                opened = self._begin(queries)
            else:
                if reused and not self._session.fits(standby=opened.facts.standby):
                    # The server's role changed, or libpq chose its fallback: libpq checks only at connect.
                    self._session.close()
                    opened = self._begin(queries)
        except PollError as error:
            error.unsent = True
            raise
        self._see(opened)
        return opened

    def _begin(self, queries: Sequence[QueryDefinition]) -> Snapshot:
        # Excess privileges require a scan of all of pg_class, and they change rarely.
        old = time.monotonic() - self._excess_at >= self._admission.excess_seconds
        privileges = self._admission.strict and (old or not self._session.is_open)
        brief = self._meter.brief
        looks = [lag_query(brief=brief)] if self._admission.wants_lag else []
        pipeline = Pipeline(self._session.connection(), self._cancel_token, self._max_result_bytes)
        facts = functools.partial(
            facts_query, queries, count_active=self._admission.count_active, charset=pipeline.charset
        )
        limits = TransactionLimits(
            self._lock_timeout, budget(queries), self._tags, commonest_timeout(queries), pipeline.charset
        )
        at = time.time()
        opening = list(pipeline.send(limits.opening([facts(privileges=privileges), *looks])))
        lag = opening.pop() if looks else None
        if error := next((reply.error for reply in opening if reply.error), None):
            # Without its transaction, the burst would run without guards, so it must not run.
            self._session.close()
            raise error
        server_facts = read_facts(_value(opening[2]))
        if (
            self._admission.strict
            and not privileges
            and (server_facts.server, server_facts.session) != self._excess_of
        ):
            # A pooler has switched to another server since the last tick.
            privileges = True
            (again,) = pipeline.send([limits.own_statement(facts(privileges=True))])
            if again.error:
                self._session.close()
                raise again.error
            server_facts = read_facts(_value(again))
        if privileges:
            self._excess, self._excess_at = server_facts.excess, time.monotonic()
            self._excess_of = (server_facts.server, server_facts.session)
        server_facts = replace(server_facts, excess=self._excess)
        if self._admission.judges_server:
            limits = replace(limits, server=server_facts.server)
        if brief and lag is not None and (lag.error or not self._meter.covers(_value(lag))):
            (lag,) = pipeline.send([limits.own_statement(lag_query())])
        return Snapshot(pipeline, limits, server_facts, self._lag(pipeline, limits, server_facts, lag), at)

    def _lag(
        self, pipeline: Pipeline, limits: TransactionLimits, facts: ServerFacts, reply: Reply | None
    ) -> Lag:
        if reply is None:
            return Lag(None, None, facts.standby, None, "it was not looked at")
        for look in (1, 2):
            if reply.error is not None:
                return Lag(None, None, facts.standby, None, f"the look at it failed: {reply.error.message}")
            lag = self._meter.read(_value(reply), time.monotonic())
            if look == 2 or lag.seconds is None or lag.seconds < _LAG_WORTH_A_SECOND_LOOK:
                break
            # WAL that has just arrived counts as old as the last mark. This reading has set a newer mark.
            self._cancel_token.wait(_SECOND_LOOK_SECONDS)
            (reply,) = pipeline.send([limits.own_statement(lag_query())])
        return lag

    def _see(self, opened: Snapshot) -> None:
        host = self._session.host
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


def _value(reply: Reply) -> bytes:
    """Return the single JSON value of a reply."""
    return (reply.rows.values[0][0] if reply.rows else None) or b""

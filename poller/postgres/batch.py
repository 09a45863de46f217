"""Batch: the queries of one tick in one transaction, with an answer for each query."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple, cast

from poller.model.errors import OverBudgetError, PollError
from poller.model.query import QueryDefinition
from poller.model.result import HOLDS, Answer, EstimateReason, Skip
from poller.postgres.pipeline import Pipeline, Reply, Statement
from poller.postgres.plan import plan_query, read_plan
from poller.postgres.snapshot import Snapshot, SnapshotOpener

_OUT_OF_TIME = {"25P03", "25P04"}
"""SQLSTATEs with which the server ends a transaction that was idle for too long or lasted too long."""
_UNREACHED = Skip("budget", "the tick used its share of the interval; the query runs first in the next tick")


class _Sent(NamedTuple):
    """One query that is sent: its own SQL, or its estimate with the reason."""

    query: QueryDefinition
    estimated: EstimateReason | None = None

    @property
    def sql(self) -> str:
        estimate = self.query.estimate
        return estimate.sql if self.estimated and estimate else self.query.sql

    @property
    def may_estimate(self) -> bool:
        """Whether the query's estimate can still replace it."""
        return self.query.estimate is not None and self.estimated is None


class Batch:
    """Runs the queries of a tick in transactions of `opener`, one attempt per call."""

    def __init__(self, opener: SnapshotOpener) -> None:
        self._opener = opener
        self._first_next: set[str] = set()

    def run(
        self,
        queries: Sequence[QueryDefinition],
        on_answer: Callable[[str], None],
        ends: float = math.inf,
        *,
        together: bool,
    ) -> dict[str, Answer]:
        """Answer each of `queries` once and return the answers by query name.

        With `together`, all queries except those with `snapshot: false` share one snapshot; otherwise each
        has its own. When the attempt `ends` (monotonic seconds), the running query is cancelled and the rest
        are skipped. Raises nothing: if an error ends the session, every query without an answer gets that
        error or is skipped.
        """
        # In sending order: queries that the last tick did not reach go first.
        queries = sorted(
            queries, key=lambda query: (together and not query.snapshot, query.name not in self._first_next)
        )
        answers: dict[str, Answer] = {}
        at = time.time()
        since = time.monotonic()
        server = ""

        def settle(answer: Answer) -> None:
            nonlocal since
            since = time.monotonic()
            answer.answered, answer.server = since, server
            answers[answer.query.name] = answer
            on_answer(answer.query.name)

        timeouts: dict[str, Answer] = {}
        try:
            opened = self._opener.open(queries)
            at = opened.at
            server = str(self._opener.connection.host or "")
            sent: list[_Sent] = []
            skips = self._opener.admission.decide(queries, opened.facts, opened.lag, time.monotonic())
            for query in queries:
                skip = skips.get(query.name)
                if skip is None:
                    sent.append(_Sent(query))
                elif query.estimate is not None and skip.reason in HOLDS:
                    sent.append(_Sent(query, cast("EstimateReason", skip.reason)))
                else:
                    settle(Answer(query, at, 0.0, skipped=skip))
            since = time.monotonic()
            for answer in self._send(
                opened, self._replace_expensive(opened, sent), timeouts, ends, together=together
            ):
                settle(answer)
        except PollError as error:
            for answer in timeouts.values():
                settle(answer)
            # Only the first query used the connection (or waited for it); the others never started.
            elapsed = time.monotonic() - since
            left = [query for query in queries if query.name not in answers]
            over_budget = isinstance(error, OverBudgetError) or error.sqlstate in _OUT_OF_TIME
            # The running query ended the session; the queries after it did not run.
            by_query = error.kind in ("too_large", "timeout") and not error.unsent
            for number, query in enumerate(left):
                took = 0.0 if number else elapsed
                # If the budget is used up, that is not a failure of the running query.
                if isinstance(error, OverBudgetError) or ((over_budget or by_query) and number > 0):
                    settle(Answer(query, at, took, skipped=_UNREACHED))
                else:
                    settle(Answer(query, at, took, error=error))
            if over_budget:
                self._first_next = {query.name for query in left}
            elif left and (by_query or (error.kind == "conflict" and not error.unsent)):
                # Both failures end the session. The failed query goes last, so that the others get results.
                self._first_next = {query.name for query in queries} - {left[0].name}
        else:
            self._first_next -= answers.keys()
        return answers

    def _replace_expensive(self, opened: Snapshot, sent: list[_Sent]) -> list[_Sent]:
        """Switch to the estimate if a plan costs more than the limit; run a query that cannot be planned.

        Such a query runs so that it reports its own error.
        """
        costed = [item for item in sent if item.may_estimate]
        if not costed:
            return sent
        statements = opened.statements
        plans = [
            statements.own_statement(
                statements.tagged(item.query, plan_query(item.query.sql)), item.query.settings
            )
            for item in costed
        ]
        expensive = set()
        for item, reply in zip(costed, opened.pipeline.send(plans), strict=True):
            limit = item.query.estimate.above_cost if item.query.estimate else 0.0
            if reply.rows is not None and read_plan(reply.rows).cost > limit:
                expensive.add(item.query.name)
        return [item._replace(estimated="cost") if item.query.name in expensive else item for item in sent]

    def _send(
        self,
        opened: Snapshot,
        sent: Sequence[_Sent],
        timeouts: dict[str, Answer],
        until: float,
        *,
        together: bool,
    ) -> Iterator[Answer]:
        """Send all queries; `timeouts` holds timed-out answers until their estimates arrive."""
        statements = opened.statements
        shared = [item for item in sent if together and item.query.snapshot]
        alone = [item for item in sent if not (together and item.query.snapshot)]
        # An estimate that replaces a timed-out query runs in the same snapshot, so ROLLBACK comes after it.
        waits = any(item.may_estimate for item in shared)
        end_of_shared: tuple[Statement, ...] = (statements.rollback(),)
        for part, statement_for, end, ends in (
            (shared, statements.shared, end_of_shared, min(until, time.monotonic() + statements.budget)),
            (alone, statements.alone, (), until),
        ):
            for item, reply in _send_together(
                opened.pipeline, part, statement_for, () if end and waits else end, ends
            ):
                answer = _answer(item, reply, opened.at if end else time.time() - reply.duration)
                if answer.error is not None and answer.error.kind == "timeout" and item.may_estimate:
                    timeouts[item.query.name] = answer
                else:
                    yield answer
            late = [item._replace(estimated="timeout") for item in part if item.query.name in timeouts]
            for item, reply in _send_together(
                opened.pipeline, late, statement_for, end if waits else (), ends
            ):
                # If the estimate fails as well, report the timeout.
                exact = timeouts.pop(item.query.name)
                answer = _answer(item, reply, exact.at)
                yield exact if answer.error else replace(answer, duration=exact.duration + answer.duration)


def _send_together(
    pipeline: Pipeline,
    sent: Sequence[_Sent],
    statement_for: Callable[[QueryDefinition, str], Sequence[Statement]],
    end: Sequence[Statement],
    until: float,
) -> Iterator[tuple[_Sent, Reply]]:
    """Send all queries together and yield the reply to each; each query is its first statement.

    `until` (monotonic seconds) bounds the run.
    """
    tagged = [statement_for(item.query, item.sql) for item in sent]
    statements = [*itertools.chain(*tagged), *end]
    if not statements:
        return
    # Closing unfinished replies cancels its remaining statements on the server.
    with closing(pipeline.send(statements, until - time.monotonic())) as replies:
        for item, statement in zip(sent, tagged, strict=True):
            reply = next(replies)
            for _ in statement[1:]:
                next(replies)
            yield item, reply
        for _ in replies:
            pass  # The transaction changed nothing, so the result of ROLLBACK does not matter.


def _answer(item: _Sent, reply: Reply, at: float) -> Answer:
    return Answer(item.query, at, reply.duration, reply.rows, reply.error, estimated=item.estimated)

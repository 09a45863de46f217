"""Batch: the queries of one tick in one transaction, with an answer for each query."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple, cast

from poller.model.errors import OverBudgetError, PollError
from poller.model.query import QueryDefinition
from poller.model.result import HOLDS, Answer, EstimateReason, PlanShape, Skip
from poller.postgres.pipeline import Pipeline, Reply, Statement
from poller.postgres.plan import Plan, plan_query, read_plan
from poller.postgres.snapshot import Snapshot, SnapshotOpener

_OUT_OF_TIME = {"25P03", "25P04"}
"""SQLSTATEs with which the server ends a transaction that was idle for too long or lasted too long."""
_UNREACHED = Skip("budget", "the tick used its share of the interval; the query runs first in the next tick")


class _Sent(NamedTuple):
    """One query that is sent: its own SQL, or its estimate with the reason."""

    query: QueryDefinition
    estimated: EstimateReason | None = None
    plan: PlanShape | None = None
    estimate_fits: bool = True
    """Whether the cost of the estimate is within the query's limit, as far as it is known."""

    @property
    def sql(self) -> str:
        estimate = self.query.estimate
        return estimate.sql if self.estimated and estimate else self.query.sql

    @property
    def may_estimate(self) -> bool:
        """Whether the query's estimate can still replace it."""
        return self.query.estimate is not None and self.estimated is None and self.estimate_fits


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
        server = database = ""

        def settle(answer: Answer) -> None:
            nonlocal since
            since = time.monotonic()
            answer.answered, answer.server, answer.database = since, server, database
            answers[answer.query.name] = answer
            on_answer(answer.query.name)

        timeouts: dict[str, Answer] = {}
        try:
            opened = self._opener.open(queries)
            at = opened.at
            if (host := self._opener.connection.host) is not None:
                server, database = str(host), host.database
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
            sent, refused = _within_cost(opened, sent)
            for item, skip in refused:
                settle(Answer(item.query, at, 0.0, skipped=skip, plan=item.plan))
            since = time.monotonic()
            for answer in _send(opened, sent, timeouts, ends, together=together):
                settle(answer)
        except PollError as error:
            for answer in timeouts.values():
                settle(answer)
            elapsed = time.monotonic() - since
            rest = [query for query in queries if query.name not in answers]
            if isinstance(error, OverBudgetError) and rest and _is_late(rest[0], elapsed):
                error = _late(rest[0])
            for answer in _answer_rest(rest, error, at, elapsed):
                settle(answer)
            self._plan_next(queries, rest, error)
        else:
            self._first_next -= answers.keys()
        return answers

    def _plan_next(
        self, queries: Sequence[QueryDefinition], rest: Sequence[QueryDefinition], error: PollError
    ) -> None:
        """Choose the queries that go first in the next tick, after `error` left `rest` without results."""
        if _is_over_budget(error):
            self._first_next = {query.name for query in rest}
        elif rest and (_is_caused_by_query(error) or (error.kind == "conflict" and not error.unsent)):
            # Both failures end the session. The failed query goes last, so that the others get results.
            self._first_next = {query.name for query in queries} - {rest[0].name}


def _send(
    opened: Snapshot, sent: Sequence[_Sent], timeouts: dict[str, Answer], until: float, *, together: bool
) -> Iterator[Answer]:
    """Send all queries; `timeouts` holds timed-out answers until their estimates arrive."""
    shared = [item for item in sent if together and item.query.snapshot]
    alone = [item for item in sent if not (together and item.query.snapshot)]
    budget_ends = time.monotonic() + opened.statements.budget
    yield from _send_shared(opened, shared, timeouts, min(until, budget_ends))
    yield from _send_alone(opened, alone, timeouts, until)


def _send_shared(
    opened: Snapshot, sent: Sequence[_Sent], timeouts: dict[str, Answer], until: float
) -> Iterator[Answer]:
    """Run the queries in the open snapshot, then the estimates of those that timed out, and end it."""
    pipeline, statements = opened.pipeline, opened.statements
    end = [statements.rollback()]
    # An estimate that replaces a timed-out query runs in the same snapshot, so ROLLBACK comes after it.
    waits = any(item.may_estimate for item in sent)
    for item, reply in _send_together(pipeline, sent, statements.shared, [] if waits else end, until):
        yield from _unless_estimated(item, _answer(item, reply, opened.at), timeouts)
    if waits:
        estimates = _send_together(pipeline, _estimates(sent, timeouts), statements.shared, end, until)
        yield from _answer_by_estimates(estimates, timeouts)


def _send_alone(
    opened: Snapshot, sent: Sequence[_Sent], timeouts: dict[str, Answer], until: float
) -> Iterator[Answer]:
    """Run each query in its own transaction, then the estimates of those that timed out."""
    pipeline, statements = opened.pipeline, opened.statements
    for item, reply in _send_together(pipeline, sent, statements.alone, [], until):
        yield from _unless_estimated(item, _answer(item, reply, time.time() - reply.duration), timeouts)
    estimates = _send_together(pipeline, _estimates(sent, timeouts), statements.alone, [], until)
    yield from _answer_by_estimates(estimates, timeouts)


def _unless_estimated(item: _Sent, answer: Answer, timeouts: dict[str, Answer]) -> Iterator[Answer]:
    """Yield the answer, except a timeout that an estimate can replace: it is added to `timeouts`."""
    if answer.error is not None and answer.error.kind == "timeout" and item.may_estimate:
        timeouts[item.query.name] = answer
    else:
        yield answer


def _estimates(sent: Sequence[_Sent], timeouts: Mapping[str, Answer]) -> list[_Sent]:
    return [item._replace(estimated="timeout") for item in sent if item.query.name in timeouts]


def _answer_by_estimates(
    replies: Iterator[tuple[_Sent, Reply]], timeouts: dict[str, Answer]
) -> Iterator[Answer]:
    """Yield the answer of each estimate; if it fails as well, the timeout of the query."""
    for item, reply in replies:
        exact = timeouts.pop(item.query.name)
        answer = _answer(item, reply, exact.at)
        yield exact if answer.error else replace(answer, duration=exact.duration + answer.duration)


def _answer_rest(
    rest: Sequence[QueryDefinition], error: PollError, at: float, elapsed: float
) -> Iterator[Answer]:
    """Answer the queries that have no answer because `error` ended the session.

    Only the first of them used the connection (or waited for it), for `elapsed` seconds.
    """
    if not rest:
        return
    running, *waiting = rest
    if isinstance(error, OverBudgetError):  # not a failure of the running query
        yield Answer(running, at, elapsed, skipped=_UNREACHED)
    else:
        yield Answer(running, at, elapsed, error=error)
    for query in waiting:
        if _is_over_budget(error) or _is_caused_by_query(error):
            yield Answer(query, at, 0.0, skipped=_UNREACHED)
        else:
            yield Answer(query, at, 0.0, error=error)


def _is_over_budget(error: PollError) -> bool:
    """Whether the transaction of the tick lasted too long, according to the poller or the server."""
    return isinstance(error, OverBudgetError) or error.sqlstate in _OUT_OF_TIME


def _is_caused_by_query(error: PollError) -> bool:
    """Whether the running query ended the session, so that the queries after it did not run."""
    return error.kind in ("too_large", "timeout") and not error.unsent


def _is_late(query: QueryDefinition, elapsed: float) -> bool:
    """Whether the query itself used up the budget: its runs with parameters took longer than its timeout."""
    return len(query.parameters) > 1 and elapsed > query.timeout


def _late(query: QueryDefinition) -> PollError:
    return PollError(
        "timeout",
        f"its {len(query.parameters)} runs with parameters took longer than the tick's share of the interval",
        hint="make the query cheaper, its interval longer, or list fewer values",
    )


def _within_cost(opened: Snapshot, sent: Sequence[_Sent]) -> tuple[list[_Sent], list[tuple[_Sent, Skip]]]:
    """Switch to the estimate if a plan costs more than the limit, and skip what has no cheaper statement.

    Return the statements to send, and the others with the reason. A query that cannot be planned is sent, so
    that it reports its own error.
    """
    plans = _plans(opened, sent)
    allowed: list[_Sent] = []
    refused: list[tuple[_Sent, Skip]] = []
    for item in sent:
        name = item.query.name
        decided, skip = _decide(item, plans.get((name, False)), plans.get((name, True)))
        if skip is None:
            allowed.append(decided)
        else:
            refused.append((decided, skip))
    return allowed, refused


def _decide(item: _Sent, exact: Plan | None, cheap: Plan | None) -> tuple[_Sent, Skip | None]:
    """Return the statement that runs by the plans of the exact one and the estimate, or why none does."""
    query, limit = item.query, math.inf if item.query.max_cost is None else item.query.max_cost
    fits = cheap is None or cheap.cost <= limit
    item = item._replace(plan=exact.shape if exact else None, estimate_fits=fits)
    expensive = exact is not None and exact.cost > query.exact_limit
    if query.estimate is not None and (item.estimated or expensive):
        skip = Skip("cost", _too_expensive("estimate's", cheap.cost, limit)) if cheap and not fits else None
        return item._replace(estimated=item.estimated or "cost"), skip
    return item, Skip("cost", _too_expensive("planner's", exact.cost, limit)) if exact and expensive else None


def _too_expensive(subject: str, cost: float, limit: float) -> str:
    return f"the {subject} cost {cost:,.0f} is above max_cost {limit:,.0f}"


def _plans(opened: Snapshot, sent: Sequence[_Sent]) -> dict[tuple[str, bool], Plan]:
    """Return the plans of the statements that have a limit, by query and whether it is the estimate's."""
    wanted = [
        (item.query, of_estimate, sql)
        for item in sent
        for of_estimate, sql in (
            (False, item.query.sql if item.may_estimate or item.query.max_cost is not None else None),
            (True, item.query.estimate and item.query.max_cost is not None and item.query.estimate.sql),
        )
        if sql and (of_estimate or not item.estimated)
    ]
    if not wanted:
        return {}
    statements = opened.statements
    plans = [
        statements.own_statement(
            statements.tagged(query, plan_query(sql)), parameters=query.parameters, settings=query.settings
        )
        for query, _, sql in wanted
    ]
    return {
        (query.name, of_estimate): read_plan(reply.rows)
        for (query, of_estimate, _), reply in zip(wanted, opened.pipeline.send(plans), strict=True)
        if reply.rows is not None
    }


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
    return Answer(
        item.query, at, reply.duration, reply.rows, reply.error, estimated=item.estimated, plan=item.plan
    )

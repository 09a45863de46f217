"""Batch: the queries of one tick in one transaction, with an answer for each query."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple, cast

from poller.model.errors import OverBudgetError, PollError
from poller.model.query import QueryDefinition
from poller.model.result import HOLDS, Answer, EstimateReason, Skip
from poller.model.rows import Rows
from poller.postgres.admission import Admission
from poller.postgres.cancellation import Waker
from poller.postgres.connection import Session
from poller.postgres.pipeline import MAX_RESULT_BYTES, Pipeline, Reply, Statement
from poller.postgres.server_tracker import Sighting
from poller.postgres.snapshot import Opened, Opening
from poller.postgres.sqlcomment import Tags, untagged
from poller.postgres.transaction import rollback


def cost_query(sql: str) -> str:
    """The statement that plans `sql` without running it (PostgreSQL manual, EXPLAIN)."""
    return f"EXPLAIN (FORMAT JSON) {sql}"


def read_cost(rows: Rows) -> float:
    """The total cost in the planner's units, of which a sequentially read page is one."""
    plan = (rows.values[0][0] or b"").decode(errors="replace")  # it names relations, in any encoding
    return float(json.loads(plan)[0]["Plan"]["Total Cost"])


_OUT_OF_TIME = {"25P03", "25P04"}
"""The server's own ends of a transaction: idle for too long, or too long altogether."""
_UNREACHED = Skip("budget", "the tick used up its share of the interval; it is first next time")


class _Sent(NamedTuple):
    """What goes out for one query: its own SQL, or its estimate and why."""

    query: QueryDefinition
    estimated: EstimateReason | None = None

    @property
    def sql(self) -> str:
        estimate = self.query.estimate
        return estimate.sql if self.estimated and estimate else self.query.sql

    @property
    def may_estimate(self) -> bool:
        """Whether an estimate could still take its place."""
        return self.query.estimate is not None and self.estimated is None


class Attempts:
    """Makes single attempts at ticks on the connection of `session`."""

    def __init__(
        self,
        session: Session,
        waker: Waker,
        admission: Admission,
        lock_timeout: float,
        on_sighting: Callable[[Sighting], None],
        tags: Tags = untagged,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """`lock_timeout` is in seconds; `on_sighting` hears of the server once an attempt has reached it.

        `tags` is asked, when a query is sent, what a comment on its SQL says.
        """
        self._session = session
        self._admission = admission
        self._opening = Opening(session, waker, admission, lock_timeout, on_sighting, tags, max_result_bytes)
        self._passed_over: set[str] = set()

    def one(
        self,
        queries: Sequence[QueryDefinition],
        on_answer: Callable[[str], None],
        ends: float = math.inf,
        *,
        together: bool,
    ) -> dict[str, Answer]:
        """Answer each of `queries` once, by name; `together` in one snapshot, or else each in its own.

        What is not answered when it `ends` (monotonic seconds) is cancelled, or skipped if it did not begin.
        Raises nothing: what ends the session is the answer of all that had none yet.
        """
        # In the order in which they are sent; who was passed over in the last tick goes first in this one.
        queries = sorted(
            queries, key=lambda query: (together and not query.snapshot, query.name not in self._passed_over)
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
            opened = self._opening.open(queries)
            at = opened.at
            server = str(self._session.host or "")
            sent: list[_Sent] = []
            skips = self._admission.decide(queries, opened.facts, opened.lag, time.monotonic())
            for query in queries:
                skip = skips.get(query.name)
                if skip is None:
                    sent.append(_Sent(query))
                elif query.estimate is not None and skip.reason in HOLDS:
                    sent.append(_Sent(query, cast("EstimateReason", skip.reason)))
                else:
                    settle(Answer(query, at, 0.0, skipped=skip))
            since = time.monotonic()
            for answer in self._send(opened, self._priced(opened, sent), timeouts, ends, together=together):
                settle(answer)
        except PollError as error:
            for answer in timeouts.values():
                settle(answer)
            # Only the first of them kept the connection (or waited for one); the others never came to it.
            elapsed = time.monotonic() - since
            left = [query for query in queries if query.name not in answers]
            over_budget = isinstance(error, OverBudgetError) or error.sqlstate in _OUT_OF_TIME
            # The session ended because of the query that ran, and not of those after it.
            by_query = error.kind in ("too_large", "timeout") and not error.unsent
            for number, query in enumerate(left):
                took = 0.0 if number else elapsed
                # Our own budget is no fault of the query that ran when it was used up.
                if isinstance(error, OverBudgetError) or ((over_budget or by_query) and number > 0):
                    settle(Answer(query, at, took, skipped=_UNREACHED))
                else:
                    settle(Answer(query, at, took, error=error))
            if over_budget:
                self._passed_over = {query.name for query in left}
            elif left and (by_query or (error.kind == "conflict" and not error.unsent)):
                # Both end the session: behind the others that costs them nothing.
                self._passed_over = {query.name for query in queries} - {left[0].name}
        else:
            self._passed_over -= answers.keys()
        return answers

    def _priced(self, opened: Opened, sent: list[_Sent]) -> list[_Sent]:
        """Put the estimate where the planner finds the query too dear; what has no plan runs to tell why."""
        asked = [one for one in sent if one.may_estimate]
        if not asked:
            return sent
        guards = opened.guards
        looks = [guards.look(guards.tagged(one.query, cost_query(one.query.sql))) for one in asked]
        dear = set()
        for one, reply in zip(asked, opened.pipeline.send(looks), strict=True):
            limit = one.query.estimate.above_cost if one.query.estimate else 0.0
            if reply.rows is not None and read_cost(reply.rows) > limit:
                dear.add(one.query.name)
        return [one._replace(estimated="cost") if one.query.name in dear else one for one in sent]

    def _send(
        self,
        opened: Opened,
        sent: Sequence[_Sent],
        timeouts: dict[str, Answer],
        until: float,
        *,
        together: bool,
    ) -> Iterator[Answer]:
        """Send it all; `timeouts` holds those whose estimates are still to come."""
        guards = opened.guards
        shared = [one for one in sent if together and one.query.snapshot]
        alone = [one for one in sent if not (together and one.query.snapshot)]
        # An estimate that takes the place of a timeout belongs into the same snapshot, so ROLLBACK waits.
        waits = any(one.may_estimate for one in shared)
        end_of_shared: tuple[Statement, ...] = (rollback(),)
        for part, word, end, ends in (
            (shared, guards.shared, end_of_shared, min(until, time.monotonic() + guards.budget)),
            (alone, guards.alone, (), until),
        ):
            for one, reply in _burst(opened.pipeline, part, word, () if end and waits else end, ends):
                answer = _answer(one, reply, opened.at if end else time.time() - reply.duration)
                if answer.error is not None and answer.error.kind == "timeout" and one.may_estimate:
                    timeouts[one.query.name] = answer
                else:
                    yield answer
            late = [one._replace(estimated="timeout") for one in part if one.query.name in timeouts]
            for one, reply in _burst(opened.pipeline, late, word, end if waits else (), ends):
                # Without an estimate, too, the timeout is what there is to tell.
                exact = timeouts.pop(one.query.name)
                answer = _answer(one, reply, exact.at)
                yield exact if answer.error else replace(answer, duration=exact.duration + answer.duration)


def _burst(
    pipeline: Pipeline,
    sent: Sequence[_Sent],
    word: Callable[[QueryDefinition, str], Sequence[Statement]],
    end: Sequence[Statement],
    until: float,
) -> Iterator[tuple[_Sent, Reply]]:
    """Send all in one burst and yield each one's reply; the first statement of each is the query.

    `until`, in monotonic seconds, bounds the burst.
    """
    worded = [word(one.query, one.sql) for one in sent]
    statements = [*itertools.chain(*worded), *end]
    if not statements:
        return
    # Closing an unfinished burst cancels on the server what of it has still to run.
    with closing(pipeline.send(statements, until - time.monotonic())) as replies:
        for one, each in zip(sent, worded, strict=True):
            reply = next(replies)
            for _ in each[1:]:
                next(replies)
            yield one, reply
        for _ in replies:
            pass  # ROLLBACK of a transaction that changed nothing: whatever it says, all is told


def _answer(one: _Sent, reply: Reply, at: float) -> Answer:
    return Answer(one.query, at, reply.duration, reply.rows, reply.error, estimated=one.estimated)

"""Poll of one tick: results of all its queries, with failures as values instead of exceptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer, PollResult
from poller.polling.mapping import to_samples


class QuerySource(Protocol):
    """Server that answers queries: `postgres.replica.Replica`, except in tests."""

    def fetch(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None], /
    ) -> Sequence[Answer]:
        """Run the queries of one tick, call `on_answer` with each answered name, return one answer each."""

    def rest(self, seconds: float, /) -> None:
        """Release what only queries need, because the next tick is due in `seconds`."""

    def interrupt(self) -> None:
        """End the current tick, from another thread."""

    def close(self) -> None:
        """Close the connection. The source cannot be used afterwards."""


def poll(
    queries: Sequence[QueryDefinition],
    source: QuerySource,
    on_answer: Callable[[str], None] = lambda _: None,
) -> list[PollResult]:
    """Poll `queries` in one tick and return one result each; `on_answer` is called per answered name."""
    return [to_result(answer) for answer in source.fetch(queries, on_answer)]


def to_result(answer: Answer) -> PollResult:
    """Convert a server's answer to the result of the poll."""
    result = PollResult(
        answer.query,
        answer.at,
        answer.duration,
        "ok",
        server=answer.server,
        database=answer.database,
        answered=answer.answered,
        plan=answer.plan,
    )
    if answer.skipped is not None:
        return result._replace(outcome="skipped", skipped=answer.skipped)
    if answer.rows is None:
        return result._replace(outcome="failed", error=answer.error)
    returned = len(answer.rows.values) + answer.rows.beyond
    try:
        mapped = to_samples(answer.query, answer.rows, answer.at)
    except PollError as error:
        return result._replace(outcome="failed", error=error, returned=returned)
    return result._replace(
        samples=mapped.samples,
        rejected=mapped.rejected,
        rejected_rows=mapped.rejected_rows,
        folded=mapped.folded,
        advice=mapped.advice,
        estimated=answer.estimated,
        returned=returned,
        unsettled=mapped.unsettled,
        closed=mapped.closed,
    )

"""Poll of one tick: results of all its queries, with failures as values instead of exceptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer, PollResult
from poller.polling.mapping import to_samples

Ask = Callable[[Sequence[QueryDefinition], Callable[[str], None]], Sequence[Answer]]
"""Puts queries to a server, tells each name as it is answered, and returns one answer each.

`Replica.ask` is the one that does it for real.
"""


def poll(
    queries: Sequence[QueryDefinition], ask: Ask, on_answer: Callable[[str], None] = lambda _: None
) -> list[PollResult]:
    """Poll `queries` in one tick and return one result each; `on_answer` hears each name when answered."""
    return [to_result(answer) for answer in ask(queries, on_answer)]


def to_result(answer: Answer) -> PollResult:
    """Turn what the server said into what the poll came to."""
    query, at, duration = answer.query, answer.at, answer.duration
    if answer.skipped is not None:
        return PollResult(query, at, duration, "skipped", skipped=answer.skipped)
    if answer.rows is None:
        return PollResult(query, at, duration, "failed", error=answer.error)
    try:
        mapped = to_samples(query, answer.rows)
    except PollError as error:
        return PollResult(query, at, duration, "failed", error=error)
    return PollResult(
        query,
        at,
        duration,
        "ok",
        mapped.samples,
        mapped.quarantined,
        mapped.refused,
        mapped.folded,
        mapped.advice,
        estimated=answer.estimated,
        server=answer.server,
    )

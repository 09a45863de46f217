"""Poll: ask, map, account for every row; never raise for a query's sake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from poller.errors import PollError
from poller.mapping import to_samples
from poller.model import Answer, PollResult, QueryDefinition

Ask = Callable[[Sequence[QueryDefinition]], Iterable[Answer]]
"""Puts queries to a server and yields one answer each; `Replica.ask` is the one that does it for real."""


def poll(
    queries: Sequence[QueryDefinition], ask: Ask, on_result: Callable[[PollResult], None] = lambda _: None
) -> list[PollResult]:
    """Poll `queries` in one tick and return one result each; `on_result` hears of each as it comes."""
    results = []
    for answer in ask(queries):
        result = to_result(answer)
        on_result(result)
        results.append(result)
    return results


def to_result(answer: Answer) -> PollResult:
    """Turn what the server said into what the poll came to."""
    query, at, duration = answer.query, answer.at, answer.duration
    if answer.skipped is not None:
        return PollResult(query, at, duration, "skipped", reason=answer.skipped)
    if answer.rows is None:
        return PollResult(query, at, duration, "failed", error=answer.error)
    try:
        mapped = to_samples(query, answer.rows)
    except PollError as error:
        return PollResult(query, at, duration, "failed", error=error)
    return PollResult(query, at, duration, "ok", mapped.samples, mapped.quarantined)

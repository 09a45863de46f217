"""Say in one word how a query stands, and in one more why."""

from __future__ import annotations

from typing import Literal, NamedTuple

from poller.result import HOLDS, PollResult

Word = Literal["ok", "estimated", "failed", "skipped", "stale"]


class State(NamedTuple):
    """What the last poll came to, in the words of table, JSON, log, metrics and health: `failed(timeout)`.

    A query that failed stays `failed` for as long as its polls are only postponed (see `state_after`).

    ok         the query's own answer
    estimated  its estimate answered; the reason is an `EstimateReason`
    failed     no answer; the reason is an `ErrorKind`
    skipped    not sent; the reason is a `SkipReason`
    stale      no poll of it ended within its max_age, nor ever: nothing is known

    Whether values are withheld is another question (`Freshness.stale`): those of a failed query are shown
    until they are too old.
    """

    word: Word
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.word}({self.reason})" if self.reason else self.word


_NOT_ITS_FAULT = {"unavailable", "cancelled"}
OK = State("ok")
STALE = State("stale")


def state_of(result: PollResult) -> State:
    """The state that a poll leaves its query in."""
    if result.error is not None:
        return State("failed", result.error.kind)
    if result.skipped is not None:
        return State("skipped", result.skipped.reason)
    return State("estimated", result.estimated) if result.estimated else OK


def own_failure(result: PollResult) -> bool | None:
    """Whether the query itself failed; None if it was not run, so that nothing is known of it.

    A timeout that an estimate made up for is a failure too.
    """
    if result.outcome == "skipped" or result.error_type in _NOT_ITS_FAULT:
        return None
    if result.error is not None and (result.error.unsent or result.duration == 0.0):
        return None  # it did not run: another query's conflict ended the session
    if result.estimated not in (None, "timeout"):
        return None  # the exact query did not run
    return result.outcome == "failed" or result.estimated == "timeout"


def state_after(result: PollResult, failing: State | None) -> State:
    """The state after a poll; `failing` is that of the last poll that ran the query, if it failed.

    A poll that was only postponed, or answered by the estimate instead, is no news of a query that fails.
    """
    reason = result.skipped.reason if result.skipped is not None else result.estimated
    postponed = reason in HOLDS or reason == "budget"
    return failing if failing is not None and postponed else state_of(result)

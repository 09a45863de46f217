"""Say in one word how a query stands, and in one more why."""

from __future__ import annotations

from typing import Literal, NamedTuple

from poller.result import PollResult

Word = Literal["ok", "estimated", "failed", "skipped", "stale"]


class State(NamedTuple):
    """What the last poll came to, in the words of table, JSON, log, metrics and health: `failed(timeout)`.

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


OK = State("ok")
STALE = State("stale")


def state_of(result: PollResult) -> State:
    """The state that a poll leaves its query in."""
    if result.error is not None:
        return State("failed", result.error.kind)
    if result.skipped is not None:
        return State("skipped", result.skipped.reason)
    return State("estimated", result.estimated) if result.estimated else OK

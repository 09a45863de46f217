"""Result of one poll, and the state and status of a query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from poller.model.errors import PollError
from poller.model.query import AttributeValue, QueryDefinition
from poller.model.rows import Rows

SkipReason = Literal[
    "role", "version", "extension", "relation", "column", "privilege", "excess_privilege", "primary", "lag",
    "busy", "duty_cycle", "breaker", "budget",
]  # fmt: skip
"""Why a query was not sent, in the words of `poller.reason`."""
REFUSALS: frozenset[SkipReason] = frozenset({"primary", "lag", "excess_privilege"})
"""Those that keep back all queries alike."""
HOLDS: frozenset[SkipReason] = frozenset({"busy", "duty_cycle", "breaker"})
"""Those for which an estimate, where there is one, answers instead."""
DECLARED: tuple[SkipReason, ...] = ("role", "version", "extension", "relation", "column")
"""Those that the query itself asks for, by its `requires`."""


EstimateReason = Literal["cost", "timeout", "busy", "duty_cycle", "breaker"]
"""Why an estimate answered: the planner's cost, the exact query's timeout, or what would have skipped it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A query that was not sent: why, in a word and in a sentence."""

    reason: SkipReason
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(slots=True)
class Answer:
    """What the replica said to one query: exactly one of rows, error and skipped is set."""

    query: QueryDefinition
    at: float
    """When the snapshot was taken: seconds since 1970, UTC; the same for all answers of one tick."""
    duration: float
    """Seconds the query kept the connection."""
    rows: Rows | None = None
    error: PollError | None = None
    skipped: Skip | None = None
    estimated: EstimateReason | None = None
    """Set where the rows are those of the estimate: why the query's own are not there."""
    answered: float = 0.0
    """When it was told: seconds on a monotonic clock."""
    server: str = ""
    """Address and port of who answered; empty where nobody did."""


@dataclass(slots=True)
class UnbrokenSequence:
    """A series of a sum for as long as it goes on unbroken."""

    start: int | None = None
    """Nanoseconds since 1970; None before its first data point."""

    def begun(self, at: int) -> int:
        """The start, told with the data point of `at`; the first one is the start itself.

        When the database began to count is not known, and a sequence that begins with a data point of no
        duration says so: what it counted before is nobody's rate (OpenTelemetry specification, metrics data
        model, "Cumulative streams: handling unknown start time").
        """
        if self.start is None or self.start > at:  # a clock was set back; no data point may precede its start
            self.start = at
        return self.start


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value: an int within 64 bits or a finite float."""

    metric: str
    value: int | float
    attributes: Mapping[str, AttributeValue]
    sequence: UnbrokenSequence | None = field(default=None, compare=False)
    """Of a sum, what a process that goes on knows of its past."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row that a metric got no data point of: why, and what the row held, as text (NULL as None)."""

    metric: str
    reason: str
    row: Mapping[str, str | None]


Outcome = Literal["ok", "failed", "skipped"]


class PollResult(NamedTuple):
    """What one poll of one query came to; a failure is a value here, not an exception in flight."""

    query: QueryDefinition
    at: float
    """When the answer was asked for: seconds since 1970, UTC."""
    duration: float
    """Seconds from asking to the last row."""
    outcome: Outcome
    samples: tuple[Sample, ...] = ()
    quarantined: Mapping[str, int] = MappingProxyType({})
    """Data points that were not exported, by reason."""
    refused: tuple[Refusal, ...] = ()
    """The first of them, for people to look at."""
    folded: int = 0
    """Data points that are in the sums of a series `other`."""
    advice: str | None = None
    """What is wrong with a metric that got no data point at all, and what to write instead."""
    error: PollError | None = None
    """Set exactly when the outcome is `failed`."""
    skipped: Skip | None = None
    """Set exactly when the outcome is `skipped`."""
    estimated: EstimateReason | None = None
    """Set where the samples are the estimate's: why the exact ones are not there."""
    server: str = ""
    """Address and port of who answered; empty where nobody did."""

    @property
    def all_refused(self) -> bool:
        """Whether rows came and not one fitted; those with a NULL are left out as the definition asks."""
        return not self.samples and any(
            count for reason, count in self.quarantined.items() if reason != "null"
        )

    @property
    def error_type(self) -> str | None:
        return self.error.kind if self.error else None


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


class Freshness(NamedTuple):
    """The age of a query's values and the state of the query, at one instant."""

    query: QueryDefinition
    last_success: float | None
    """Seconds since 1970, UTC; None before the first success."""
    age: float | None
    """Seconds since the last success, on a clock that is never set."""
    stale: bool
    """Whether the values are withheld: older than `max_age`, or never there."""
    series: int
    """Series shown at this instant."""
    state: State
    duration: float | None = None
    """Seconds that the last poll used the connection; None before the first and if it was skipped."""
    reported: State | None = None
    """State of the poll whose values are reported: ok or estimated; None while none are."""

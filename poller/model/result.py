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
    "busy", "duty_cycle", "breaker", "budget", "schedule", "cost",
]  # fmt: skip
"""Why a query was not sent, as in `poller.reason`."""
REFUSALS: frozenset[SkipReason] = frozenset({"primary", "lag", "excess_privilege"})
"""The reasons that stop all queries."""
HOLDS: frozenset[SkipReason] = frozenset({"busy", "duty_cycle", "breaker"})
"""The reasons for which the query's estimate, if it has one, runs instead."""
DECLARED: tuple[SkipReason, ...] = ("role", "version", "extension", "relation", "column", "schedule")
"""The reasons that come from the query's own `requires` and `schedule`."""


MAX_NODES = 20
"""Nodes of a plan that are compared by name."""


class PlanShape(NamedTuple):
    """The shape of a planner's plan: its nodes and their relations and indexes, without costs."""

    digest: str
    nodes: tuple[str, ...]
    """The first MAX_NODES nodes, such as `Seq Scan on messages`, from the root."""


EstimateReason = Literal["cost", "timeout", "busy", "duty_cycle", "breaker"]
"""Why an estimate answered: the planner's cost, the exact query's timeout, or the reason for a skip."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A query that was not sent: the reason, and a sentence."""

    reason: SkipReason
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(slots=True)
class Answer:
    """The server's answer to one query: exactly one of rows, error and skipped is set."""

    query: QueryDefinition
    at: float
    """Time of the snapshot: seconds since 1970, UTC; all queries of one snapshot have the same."""
    duration: float
    """Seconds that the query used the connection."""
    rows: Rows | None = None
    error: PollError | None = None
    skipped: Skip | None = None
    estimated: EstimateReason | None = None
    """Set if the rows are those of the estimate: why the exact query has no rows."""
    plan: PlanShape | None = None
    """Plan of the exact query; None if its cost decided nothing."""
    answered: float = 0.0
    """Time of the answer: seconds on a monotonic clock."""
    server: str = ""
    """Address and port of the server that answered; empty without a server."""
    database: str = ""
    """Name of the database that answered; empty without a server."""


@dataclass(slots=True)
class UnbrokenSequence:
    """The data points of one sum series without a reset in between."""

    start: int | None = None
    """Nanoseconds since 1970; None before the first data point."""

    def begun(self, at: int) -> int:
        """Return the start time for a data point at `at` (nanoseconds); the first data point sets it.

        PostgreSQL does not record when the counter started. A first data point without duration expresses
        that: its value is not counted in any rate (OpenTelemetry specification, metrics data model,
        "Cumulative streams: handling unknown start time").
        """
        if self.start is None or self.start > at:  # a clock was set back; no data point may precede its start
            self.start = at
        return self.start


@dataclass(slots=True)
class DataTime:
    """The time of one data point that a column of the result has, and whether the point was exported."""

    at: int
    """Nanoseconds since 1970."""
    exported: bool = False
    """Whether the point was handed over for delivery, so that it is not exported again."""
    collected: bool = False
    """Whether the point is part of the last collection."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value: an int within 64 bits or a finite float.

    Only the objects in `sequence` and `time` change after the poll. All changes but one are made during a
    collection, which the exporter's lock allows once at a time:

    - `sequence.start`: the first collection sets it (`polling.instruments`);
    - `time.collected`: the store sets it under its own lock when it returns its results;
    - `time.exported`: the store sets it after the hand-over. It does not need its lock, because `exported`
      is true before `collected` is false, so that no poll can see a data point that is neither.

    A newer result may contain the last sample, or its `sequence`, again.
    """

    metric: str
    value: int | float
    attributes: Mapping[str, AttributeValue]
    sequence: UnbrokenSequence | None = field(default=None, compare=False)
    """For a sum: the start time, known only to a process that polls repeatedly."""
    time: DataTime | None = field(default=None, compare=False)
    """For a metric with a time column: the time of the row."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One row without a data point for a metric: the reason, and the row's values as text (NULL as None)."""

    metric: str
    reason: str
    row: Mapping[str, str | None]


Outcome = Literal["ok", "failed", "skipped"]


class PollResult(NamedTuple):
    """The result of one poll of one query; a failure is a value here, not an exception."""

    query: QueryDefinition
    at: float
    """Time of the query's snapshot: seconds since 1970, UTC."""
    duration: float
    """Seconds that the query used the connection."""
    outcome: Outcome
    samples: tuple[Sample, ...] = ()
    rejected: Mapping[str, int] = MappingProxyType({})
    """Number of rejected data points by reason."""
    rejected_rows: tuple[RejectedRow, ...] = ()
    """The first of these rows, for display."""
    folded: int = 0
    """Data points that are summed in a series `other`."""
    advice: str | None = None
    """The problem of a metric without any data point, and its fix."""
    error: PollError | None = None
    """Set if and only if the outcome is `failed`."""
    skipped: Skip | None = None
    """Set if and only if the outcome is `skipped`."""
    estimated: EstimateReason | None = None
    """Set if the samples are the estimate's: why the exact query has no samples."""
    server: str = ""
    """Address and port of the server that answered; empty without a server."""
    database: str = ""
    """Name of the database that answered; empty without a server, or if it is unknown."""
    answered: float = 0.0
    """Time of the answer: seconds on a monotonic clock."""
    returned: int | None = None
    """Number of rows that the server returned; None without rows."""
    plan: PlanShape | None = None
    """Plan of the exact query; None if its cost decided nothing."""
    unsettled: int = 0
    """Data points whose time is not past by `settle`."""
    closed: frozenset[int] | None = None
    """Hashes of all data points whose time is past by `settle`; None if they are unknown."""
    newest: Mapping[str, int] = MappingProxyType({})
    """By metric with a time column: the newest time of its data points, in nanoseconds since 1970."""

    @property
    def all_rejected(self) -> bool:
        """Whether rows arrived but all were rejected; rows with a NULL do not count as rejected."""
        return not self.samples and any(count for reason, count in self.rejected.items() if reason != "null")

    @property
    def error_type(self) -> str | None:
        return self.error.kind if self.error else None


class GoodResult(NamedTuple):
    """A good result, and the time of its arrival on the store's clock."""

    result: PollResult
    at: float


StateName = Literal["ok", "estimated", "failed", "skipped", "stale"]


class State(NamedTuple):
    """State of a query after its last poll, as in table, JSON, log, metrics and health: `failed(timeout)`.

    A query that failed stays `failed` as long as its polls are only postponed (see `state_after`).

    ok         the query's own answer
    estimated  its estimate answered; the reason is an `EstimateReason`
    failed     no answer; the reason is an `ErrorKind`
    skipped    not sent; the reason is a `SkipReason`
    stale      no poll ended within its max_age, or ever: the state is unknown

    Until its first run, a query with a schedule is skipped(schedule).

    The state does not decide whether values are exported (see `Freshness.stale`): the values of a failed
    query are exported until they are too old.
    """

    name: StateName
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.name}({self.reason})" if self.reason else self.name


_CAUSED_BY_OTHERS = {"unavailable", "cancelled"}
"""Kinds of errors that the query itself does not cause."""
OK = State("ok")
STALE = State("stale")
WAITING = State("skipped", "schedule")
"""State of a query with a schedule before its first run."""


def state_of(result: PollResult) -> State:
    """Return the state of a query after a poll."""
    if result.error is not None:
        return State("failed", result.error.kind)
    if result.skipped is not None:
        return State("skipped", result.skipped.reason)
    return State("estimated", result.estimated) if result.estimated else OK


def own_failure(result: PollResult) -> bool | None:
    """Return whether the query itself failed; None if it was not run, so that its state is unknown.

    A timeout counts as a failure even if the estimate answered.
    """
    if result.outcome == "skipped" or result.error_type in _CAUSED_BY_OTHERS:
        return None
    if result.error is not None and (result.error.unsent or result.duration == 0.0):
        return None  # it did not run: another query's conflict ended the session
    if result.estimated not in (None, "timeout"):
        return None  # the exact query did not run
    return result.outcome == "failed" or result.estimated == "timeout"


def state_after(result: PollResult, failing: State | None) -> State:
    """Return the state after a poll; `failing` is that of the last poll that ran the query, if it failed.

    If a poll was only postponed or answered by the estimate, a failing query keeps its state.
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
    """Seconds since the last success, on a monotonic clock."""
    stale: bool
    """Whether the values are not exported: they are older than `max_age`, or there are none."""
    series: int
    """Number of series that are exported at this instant."""
    state: State
    duration: float | None = None
    """Seconds that the last poll used the connection; None before the first poll and if it was skipped."""
    reported: State | None = None
    """State of the poll whose values are exported: ok or estimated; None without values."""

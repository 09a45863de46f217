"""Say what one poll of a query came to: its samples, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from poller.errors import PollError
from poller.metric import AttributeValue
from poller.overflow import Rows
from poller.query import QueryDefinition

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

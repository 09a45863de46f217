"""Query definition: SQL, schedule, limits, requirements, metrics and their alerts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from poller.model.rows import Limit

Of = Literal["value", "daily_growth", "weekly_change"]
"""What is compared with the limit.

value          the metric itself, in its unit
daily_growth   what it grows by in a day (by the slope of the last day), in its unit
weekly_change  the last hour against the same hour a week ago, as a share: 0.5 is half as much again
"""
Side = Literal["above", "below"]
Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alerting rule of Prometheus over one metric: a limit, and how long it must be passed."""

    of: Of = "value"
    above: float | None = None
    """In the metric's unit; of a `weekly_change` a share. One of the two limits is there."""
    below: float | None = None
    for_: float = 900.0
    """Seconds."""
    severity: Severity = "warning"
    summary: str | None = None
    runbook: str | None = None

    @property
    def side(self) -> Side:
        return "above" if self.above is not None else "below"

    @property
    def limit(self) -> float:
        """In the metric's unit; of a `weekly_change` a share."""
        return self.above if self.above is not None else (self.below or 0.0)


MetricType = Literal["gauge", "counter", "updowncounter"]
"""What is exported, in the words of OpenTelemetry's instruments.

gauge          a value as it is now
counter        a cumulative, monotonic sum: it only grows, and a lower value means that it began anew
updowncounter  a cumulative sum that may fall
"""
OnNull = Literal["drop", "zero", "fail"]
AttributeValue = str | bool | int | float
"""An attribute value that OTLP carries as it is (OpenTelemetry specification, common/README.md)."""

MAX_ATTRIBUTE_LENGTH = 1024
"""Characters; a longer attribute value is a sign of data that was never meant to be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDefinition:
    """One metric that a query feeds: a value column, and the columns that tell its series apart."""

    name: str
    """As it is exported, with the namespace."""
    description: str
    unit: str
    """UCUM."""
    type: MetricType = "gauge"
    value_column: str
    attribute_columns: tuple[str, ...] = ()
    attribute_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All values that a column can have."""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    on_null: OnNull = "drop"
    alert: tuple[Alert, ...] = ()


RequiredRole = Literal["standby", "primary", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What must hold on the server before a query is sent; where it does not, the query is skipped."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Relations and the columns they must have; none: the relation alone."""
    role: RequiredRole = "any"
    server_version: str | None = None
    """`>=14` or `>=14,<18`."""
    extensions: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    """Roles whose privileges ours must have."""


DEFAULT_INTERVAL = 300.0
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_SERIES = 1000
STALE_AFTER_INTERVALS = 3

Overflow = Literal["drop", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The cheap answer to a query that would cost too much."""

    sql: str
    above_cost: float
    """Planner cost of the query's own SQL from which on this is run."""


@dataclass(frozen=True, kw_only=True)
class QueryDefinition:
    """One SQL statement, when to run it, within which bounds, and the metrics its rows feed.

    Durations are in seconds. `poller.declared` makes it of what a query file says, and says what may stand
    there.
    """

    name: str
    sql: str
    ordered: bool = field(default=False, repr=False, compare=False)
    """Whether `sql` says in which order its rows come."""
    interval: float = DEFAULT_INTERVAL
    timeout: float = DEFAULT_TIMEOUT
    max_age: float = DEFAULT_INTERVAL * STALE_AFTER_INTERVALS
    max_series: int = DEFAULT_MAX_SERIES
    overflow: Overflow = "drop"
    group: str = "default"
    requires: Requirements = field(default_factory=Requirements)
    snapshot: bool = True
    estimate: Estimate | None = None
    metrics: tuple[MetricDefinition, ...]

    def told(self) -> dict[str, Any]:
        """All that was declared, in plain values."""
        told = dataclasses.asdict(self)
        del told["ordered"]
        return told

    @cached_property
    def digest(self) -> str:
        """What it asks and what its rows feed, in short: where this is another, so are its values."""
        told = self.told()
        asked = {key: told[key] for key in ("sql", "metrics", "estimate", "max_series", "overflow")}
        for metric in asked["metrics"]:
            del metric["description"], metric["alert"]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @cached_property
    def limit(self) -> Limit:
        """Which rows of a result are kept, and what is made of the rest."""
        columns = {name: None for metric in self.metrics for name in metric.attribute_columns}
        return Limit(
            self.max_series,
            # Without an ORDER BY the server may give them in another order each time.
            order=() if self.ordered else tuple(columns),
            fold=tuple(metric.value_column for metric in self.metrics) if self.overflow == "other" else (),
        )

"""Query definition: SQL, schedule, limits, requirements, metrics and their alerts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from poller.model.rows import Limit
from poller.model.schedule import Schedule

Of = Literal["value", "daily_growth", "weekly_change"]
"""The value that is compared with the limit.

value          the metric itself, in its unit
daily_growth   its growth per day (by the slope of the last day), in its unit
weekly_change  the last hour compared with the same hour a week ago, as a share: 0.5 is 50 % more
"""
Side = Literal["above", "below"]
AlertSeverity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One Prometheus alerting rule for one metric: a limit, and how long it must be exceeded."""

    of: Of = "value"
    above: float | None = None
    """In the metric's unit; a share for `weekly_change`. One of the two limits is set."""
    below: float | None = None
    for_: float = 900.0
    """Seconds."""
    severity: AlertSeverity = "warning"
    summary: str | None = None
    runbook: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def side(self) -> Side:
        return "above" if self.above is not None else "below"

    @property
    def limit(self) -> float:
        """In the metric's unit; a share for `weekly_change`."""
        return self.above if self.above is not None else (self.below or 0.0)


MetricType = Literal["gauge", "counter", "updowncounter"]
"""The exported type, with the names of OpenTelemetry's instruments.

gauge          a current value
counter        a cumulative, monotonic sum: it only grows, and a lower value means that it was reset
updowncounter  a cumulative sum that may fall
"""
OnNull = Literal["drop", "zero", "fail"]
AttributeValue = str | bool | int | float
"""An attribute value that OTLP supports directly (OpenTelemetry specification, common/README.md)."""

MAX_ATTRIBUTE_LENGTH = 1024
"""Characters; a longer value is probably data that was not intended as an attribute."""


Parameters = tuple[Mapping[str, AttributeValue], ...]
"""Values of a statement's parameters, `$1` first, for each of its runs."""
NO_PARAMETERS: Parameters = ({},)
"""One run without parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDefinition:
    """One metric of a query: a value column, and the columns that distinguish its series."""

    name: str
    """The exported name, with the namespace."""
    description: str
    unit: str
    """In UCUM."""
    type: MetricType = "gauge"
    value_column: str
    attribute_columns: tuple[str, ...] = ()
    """Columns of the result; the parameters of the query are its last columns."""
    attribute_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All values that an attribute column can have."""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    on_null: OnNull = "drop"
    alert: tuple[Alert, ...] = ()
    time_column: str | None = None
    """Column with the time of the data points; None: they have the time of their export."""
    settle: float | None = None
    """Seconds after which a row with a time does not change any more; set if `time_column` is."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the result that the metric uses."""
        timed = () if self.time_column is None else (self.time_column,)
        return (self.value_column, *self.attribute_columns, *timed)


RequiredRole = Literal["standby", "primary", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """Conditions on the server for sending a query; if one does not hold, the query is skipped."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Relations and the columns they must have; without columns, only the relation must exist."""
    role: RequiredRole = "any"
    server_version: str | None = None
    """`>=14` or `>=14,<18`."""
    extensions: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    """Roles whose privileges the poller's role must have."""


DEFAULT_INTERVAL = 300.0
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_SERIES = 1000
STALE_AFTER_INTERVALS = 3
STALE_AFTER_RUNS = 2
"""Default `max_age` of a query with a schedule, in longest times between two runs."""
LONGEST_INTERVAL = 86400.0

Overflow = Literal["drop", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The cheap replacement for an expensive query."""

    sql: str
    above_cost: float
    """Planner cost of the query's own SQL above which the estimate runs."""


DESCRIPTIONS = frozenset({"description", "alert", "owner"})
"""Keys of a query and its metrics that only describe it."""
_NOT_NUMBERS = DESCRIPTIONS | {
    *("name", "interval", "schedule", "timeout", "max_age", "group", "snapshot", "requires", "targets"),
    *("once_per_server", "max_cost"),
}
"""Keys of a query that do not change its numbers. All others, also future ones, may change them."""


@dataclass(frozen=True, kw_only=True)
class QueryDefinition:
    """One SQL statement, its schedule and limits, and the metrics of its rows.

    Durations are in seconds. `poller.config.queries` builds and validates it from a query file.
    """

    name: str
    sql: str
    ordered: bool = field(default=False, repr=False, compare=False)
    """Whether `sql` specifies the order of its rows."""
    interval: float = DEFAULT_INTERVAL
    """With a schedule: the shortest time between two runs, at most LONGEST_INTERVAL."""
    schedule: Schedule | None = None
    timeout: float = DEFAULT_TIMEOUT
    max_age: float = DEFAULT_INTERVAL * STALE_AFTER_INTERVALS
    max_series: int = DEFAULT_MAX_SERIES
    overflow: Overflow = "drop"
    group: str = "default"
    requires: Requirements = field(default_factory=Requirements)
    snapshot: bool = True
    estimate: Estimate | None = None
    targets: tuple[str, ...] = ()
    """Selectors of targets (see `Target.selects`); empty: all."""
    once_per_server: bool = False
    """Whether, of all databases of a server, only the one that lists the others is polled."""
    owner: str | None = None
    """Who is responsible for it; None: not declared."""
    parameters: Parameters = NO_PARAMETERS
    max_cost: float | None = None
    """Planner cost above which a statement of the query does not run; None: no limit."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL settings during the query, by name."""
    metrics: tuple[MetricDefinition, ...]

    @property
    def longest_interval(self) -> float:
        """Longest time between two runs, in seconds."""
        return self.interval if self.schedule is None else self.schedule.distances.longest

    def declared(self) -> dict[str, Any]:
        """Return the declared settings as plain values."""
        settings = dataclasses.asdict(self)
        del settings["ordered"]
        return settings

    @cached_property
    def digest(self) -> str:
        """Hash of all keys that may change its numbers: if it changes, earlier values do not apply."""
        keys = {key: value for key, value in self.declared().items() if key not in _NOT_NUMBERS}
        # If a key of a later version is not used, the hash equals that of earlier versions.
        if self.parameters == NO_PARAMETERS:
            del keys["parameters"]
        if not self.settings:
            del keys["settings"]
        for metric in keys["metrics"]:
            for description in DESCRIPTIONS & metric.keys():
                del metric[description]
            if metric["time_column"] is None:
                del metric["time_column"], metric["settle"]
        return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()

    @property
    def exact_limit(self) -> float:
        """Planner cost of `sql` above which the estimate runs instead or, without one, nothing."""
        above_cost = self.estimate.above_cost if self.estimate is not None else math.inf
        return min(above_cost, math.inf if self.max_cost is None else self.max_cost)

    @cached_property
    def limit(self) -> Limit:
        """Limit of a result's rows: their number and order, and the columns summed over the rest."""
        columns = {name: None for metric in self.metrics for name in metric.attribute_columns}
        return Limit(
            self.max_series,
            # Without an ORDER BY, the server may return them in a different order each time.
            order=() if self.ordered else tuple(columns),
            fold=tuple(metric.value_column for metric in self.metrics) if self.overflow == "other" else (),
        )

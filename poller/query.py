"""Say what a query is: its SQL, when to run it, within which bounds, and the metrics its rows feed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from poller.metric import MetricDefinition
from poller.overflow import Limit
from poller.requirements import Requirements

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

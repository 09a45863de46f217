"""Say when somebody is told of a metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

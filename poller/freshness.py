"""The status of a query at one instant."""

from __future__ import annotations

from typing import NamedTuple

from poller.query import QueryDefinition
from poller.state import State


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

"""Gauges `poller.query.*`: the status of every query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from poller.model.result import OK, STALE, State
from poller.telemetry.poll_metrics import QUERY, STATE

if TYPE_CHECKING:
    from poller.model.result import Freshness

_GAUGES: tuple[tuple[str, str, str, Callable[[Freshness], float | None]], ...] = (
    (
        "last_success",
        "s",
        "Time of the last successful poll, in seconds since 1970.",
        lambda status: status.last_success,
    ),
    ("duration", "s", "Time that the last poll used the connection.", lambda status: status.duration),
    ("series", "{series}", "Series that the query reports now.", lambda status: status.series),
)


_STATE = "poller.query.state"


class QueryMetrics:
    """The statuses of the queries of one target as gauges."""

    def __init__(self, *, states_only: bool = False) -> None:
        """With `states_only`, a query that is ok has no data point."""
        self._gauges = () if states_only else _GAUGES
        self._states: Mapping[str, Set[State]] = {}
        self.definitions = {
            f"poller.query.{name}": (unit, description) for name, unit, description, _ in self._gauges
        }
        self.definitions[_STATE] = (
            "{query}",
            "1 for each state of the query other than ok; 0 once after it has left a state.",
        )

    def read(self, statuses: Sequence[Freshness]) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the data points of one collection.

        A state that a query has left is reported once more as 0, because backends continue to show the last
        value for minutes (Prometheus: 5).
        """
        states = {status.query.name: _states(status) for status in statuses}
        before, self._states = self._states, states
        for name, _unit, _description, read in self._gauges:
            for status in statuses:
                if (value := read(status)) is not None:
                    yield f"poller.query.{name}", value, {QUERY: status.query.name}
        for query, now in states.items():
            for state in before.get(query, set()) - now:
                yield _STATE, 0, _attributes(query, state)
        for query, now in states.items():
            for state in now:
                yield _STATE, 1, _attributes(query, state)


def _states(status: Freshness) -> Set[State]:
    """The states other than ok: of the last poll, and `estimated` or `stale` if the reported values are so.

    They differ while the last good values are still reported after a failed poll.
    """
    return {status.state, STALE if status.stale else status.reported or OK} - {OK}


def _attributes(query: str, state: State) -> Mapping[str, str]:
    attributes = {QUERY: query, STATE: state.name}
    if state.reason is not None:
        attributes["error.type" if state.name == "failed" else "poller.reason"] = state.reason
    return attributes

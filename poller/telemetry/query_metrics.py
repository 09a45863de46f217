"""Gauges `poller.query.*`: the status of every query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

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


class QueryMetrics:
    """Observable gauges that read the statuses of one collection."""

    def __init__(self) -> None:
        self._statuses: Sequence[Freshness] = ()
        self._states: Mapping[str, Set[State]] = {}
        self._left: Mapping[str, Set[State]] = {}

    def prepare(self, statuses: Sequence[Freshness]) -> None:
        """Report `statuses` at the next collection.

        A state that a query has left is reported once more as 0, because backends continue to show the last
        value for minutes (Prometheus: 5).
        """
        states = {status.query.name: _states(status) for status in statuses}
        self._left = {name: self._states.get(name, set()) - now for name, now in states.items()}
        self._statuses, self._states = statuses, states

    def register(self, meter: Meter) -> None:
        """Create the gauges."""
        for name, unit, description, read in _GAUGES:
            meter.create_observable_gauge(
                f"poller.query.{name}", [self._reader_of(read)], unit=unit, description=description
            )
        meter.create_observable_gauge(
            "poller.query.state",
            [self._observe_states],
            unit="{query}",
            description="1 for each state of the query other than ok; 0 once after it has left a state.",
        )

    def _reader_of(
        self, read: Callable[[Freshness], float | None]
    ) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for status in self._statuses:
                if (value := read(status)) is not None:
                    yield Observation(value, {QUERY: status.query.name})

        return observe

    def _observe_states(self, _: CallbackOptions) -> Iterator[Observation]:
        for value, states in ((0, self._left), (1, self._states)):
            for query, of_query in states.items():
                for state in of_query:
                    yield Observation(value, _attributes(query, state))


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

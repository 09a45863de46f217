"""Gauges `poller.target.*`: the status of one target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, get_args

from poller.model.result import StateName
from poller.telemetry.poll_metrics import STATE

if TYPE_CHECKING:
    from poller.model.result import Freshness, PollResult

_STATES: tuple[StateName, ...] = get_args(StateName)


class TargetMetrics:
    """The status of one target as gauges, from its polls and from the statuses of its queries."""

    definitions: ClassVar[Mapping[str, tuple[str, str]]] = {
        "poller.target.up": ("{target}", "1 if the last poll reached the database, 0 if it did not."),
        "poller.target.last_success": (
            "s",
            "Time of the last successful poll of any query, in seconds since 1970.",
        ),
        "poller.target.duration": ("s", "Time that the last tick used the connection."),
        "poller.target.queries": ("{query}", "Queries of the target by state."),
    }

    def __init__(self) -> None:
        self._last_poll: tuple[bool, float] | None = None
        self._states: dict[str, int] = {}

    def observe(self, results: Sequence[PollResult]) -> None:
        """Record whether a tick reached the database, and how long it used the connection."""
        up = not any(result.error_type == "unavailable" for result in results)
        self._last_poll = up, sum(result.duration for result in results)

    def read(self, statuses: Sequence[Freshness]) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the data points of one collection.

        A state without queries is omitted, but reported once as 0 after its last query has left it.
        """
        if self._last_poll is not None:
            up, duration = self._last_poll
            yield "poller.target.up", int(up), {}
            yield "poller.target.duration", duration, {}
        successes = [status.last_success for status in statuses if status.last_success is not None]
        if successes:
            yield "poller.target.last_success", max(successes), {}
        counts = Counter(str(status.state.name) for status in statuses)
        for state in _STATES:
            if counts[state] or self._states.get(state):
                yield "poller.target.queries", counts[state], {STATE: state}
        self._states = dict(counts)

"""Gauges of a target: the status of its queries, of the target, of its server and of its databases."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, ClassVar, get_args

from poller.model.query import AttributeValue
from poller.model.result import OK, STALE, State, StateName
from poller.telemetry.poll_metrics import QUERY, STATE

if TYPE_CHECKING:
    from poller.model.result import Freshness, PollResult
    from poller.postgres.database_list import DatabaseState
    from poller.postgres.server_tracker import ServerInfo, ServerTracker

_QUERY_GAUGES: tuple[tuple[str, str, str, Callable[[Freshness], float | None]], ...] = (
    (
        "last_success",
        "s",
        "Time of the last successful poll, in seconds since 1970.",
        lambda status: status.last_success,
    ),
    ("duration", "s", "Time that the last poll used the connection.", lambda status: status.duration),
    ("series", "{series}", "Series that the query reports now.", lambda status: status.series),
)
_QUERY_STATE = "poller.query.state"
_STATE_NAMES: tuple[StateName, ...] = get_args(StateName)
_REPLICA_GAUGES: tuple[tuple[str, str, str, Callable[[ServerInfo, float], float | None]], ...] = (
    ("lag", "s", "Replay lag at the last poll; absent while it is unknown.", lambda server, _: server.lag),
    (
        "data_age",
        "s",
        "Maximum age of the state of the primary that the values show.",
        lambda server, since: None if server.data_age is None else server.data_age + since,
    ),
    (
        "standby",
        "{standby}",  # a unit of 1 would make it a `_ratio` in Prometheus
        "1 while the server is a standby, 0 while it is a primary.",
        lambda server, _: int(server.standby),
    ),
    (
        "timeline",
        "{timeline}",
        "Timeline of the server; it grows by one at a promotion.",
        lambda server, _: server.timeline,
    ),
)


class QueryMetrics:
    """The statuses of the queries of one target as gauges."""

    def __init__(self, *, states_only: bool = False) -> None:
        """With `states_only`, a query that is ok has no data point."""
        self._gauges = () if states_only else _QUERY_GAUGES
        self._states: Mapping[str, Set[State]] = {}
        self.definitions = {
            f"poller.query.{name}": (unit, description) for name, unit, description, _ in self._gauges
        }
        self.definitions[_QUERY_STATE] = (
            "{query}",
            "1 for each state of the query other than ok; 0 once after it has left a state.",
        )

    def read(self, statuses: Sequence[Freshness]) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the data points of one collection.

        A state that a query has left is reported once more as 0, because backends continue to show the last
        value for minutes (Prometheus: 5).
        """
        states = {status.query.name: _query_states(status) for status in statuses}
        before, self._states = self._states, states
        for name, _unit, _description, read in self._gauges:
            for status in statuses:
                if (value := read(status)) is not None:
                    yield f"poller.query.{name}", value, {QUERY: status.query.name}
        for query, now in states.items():
            for state in before.get(query, set()) - now:
                yield _QUERY_STATE, 0, _state_attributes(query, state)
        for query, now in states.items():
            for state in now:
                yield _QUERY_STATE, 1, _state_attributes(query, state)


def _query_states(status: Freshness) -> Set[State]:
    """The states other than ok: of the last poll, and `estimated` or `stale` if the reported values are so.

    They differ while the last good values are still reported after a failed poll.
    """
    return {status.state, STALE if status.stale else status.reported or OK} - {OK}


def _state_attributes(query: str, state: State) -> Mapping[str, str]:
    attributes = {QUERY: query, STATE: state.name}
    if state.reason is not None:
        attributes["error.type" if state.name == "failed" else "poller.reason"] = state.reason
    return attributes


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
        for state in _STATE_NAMES:
            if counts[state] or self._states.get(state):
                yield "poller.target.queries", counts[state], {STATE: state}
        self._states = dict(counts)


class ReplicaMetrics:
    """The state of the server of one target as gauges; they are absent if it was not seen for too long."""

    definitions: ClassVar[Mapping[str, tuple[str, str]]] = {
        f"poller.replica.{name}": (unit, description) for name, unit, description, _ in _REPLICA_GAUGES
    }

    def __init__(self, tracker: ServerTracker, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracker = tracker
        self._clock = clock

    def read(self, _: object) -> Iterator[tuple[str, float, Mapping[str, AttributeValue]]]:
        """Yield the data points of one collection."""
        now = self._clock()
        server = self._tracker.current(now)
        if server is not None:
            attributes: dict[str, AttributeValue] = {
                "server.address": server.address,
                "server.port": server.port,
            }
            for name, _unit, _description, read in _REPLICA_GAUGES:
                if (value := read(server, now - server.at)) is not None:
                    yield f"poller.replica.{name}", value, attributes


class DiscoveryMetrics:
    """The last successful discovery of the databases of a server, as gauges."""

    definitions: ClassVar[Mapping[str, tuple[str, str]]] = {
        "poller.discovery.databases": ("{database}", "Databases of the server by state."),
        "poller.discovery.last_success": (
            "s",
            "Time at which the list of databases was read, in seconds since 1970.",
        ),
    }

    def __init__(self) -> None:
        self.counts: Mapping[DatabaseState, int] = {}
        self.last_success: float | None = None

    def read(self, _: Sequence[Freshness]) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the data points of one collection; none before the first success."""
        for state, count in self.counts.items():
            yield "poller.discovery.databases", count, {STATE: state}
        if self.last_success is not None:
            yield "poller.discovery.last_success", self.last_success, {}

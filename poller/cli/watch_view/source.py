"""State of a poller as `watch` displays it, and its reader from the heartbeat file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poller.daemon.health import clock, judge, read
from poller.polling.status import QueryStatus, from_json


@dataclass(frozen=True, slots=True)
class PollerStatus:
    """A poller at one moment."""

    good: bool
    """Whether it is alive."""
    state: str
    """The poller in a line."""
    server: str
    """The server that it polls in a line; empty where nobody knows."""
    statuses: Sequence[QueryStatus]
    news: Sequence[str] = ()
    """What it said last."""
    omitted: int = 0
    """Queries that the heartbeat has no room for."""
    states: Mapping[str, int] = field(default_factory=dict)
    """How many queries are in which state; empty if only the statuses of single queries are known."""


Look = Callable[[], PollerStatus]


def running_poller(places: Sequence[Path]) -> Look:
    """Look at the poller whose heartbeat is at the best of `places` (see `poller.daemon.health.places`)."""

    def look() -> PollerStatus:
        heartbeat = read(list(places))
        good, why = judge(heartbeat, ready=False, now=clock())
        if isinstance(heartbeat, str):
            return PollerStatus(good, why, "", ())
        try:
            statuses = from_json(heartbeat.get("glances", ()))
            omitted = int(heartbeat.get("omitted", 0))
            states = {str(word): int(count) for word, count in heartbeat.get("states", {}).items()}
        except (ValueError, TypeError, AttributeError) as error:
            return PollerStatus(False, f"the heartbeat is of another version: it {error}", "", ())
        # How many are in which state is told below the queries.
        state = re.sub(r"; queries: [^;]*", "", why)
        server = str(heartbeat.get("server") or "")
        return PollerStatus(good, state, server, statuses, omitted=omitted, states=states)

    return look

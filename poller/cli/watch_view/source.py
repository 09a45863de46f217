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
    """State of a poller at one moment."""

    good: bool
    """Whether it is alive."""
    state: str
    """Summary of the poller in one line."""
    server: str
    """The polled server in one line; empty if it is unknown."""
    statuses: Sequence[QueryStatus]
    news: Sequence[str] = ()
    """Latest log lines."""
    omitted: int = 0
    """Number of queries that the heartbeat omits."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Number of queries per state; empty if only the statuses of single queries are known."""


ReadStatus = Callable[[], PollerStatus]


def running_poller(places: Sequence[Path]) -> ReadStatus:
    """Return a reader of the heartbeat at the first usable path of `places` (see `daemon.health.places`)."""

    def read_status() -> PollerStatus:
        heartbeat = read(list(places))
        alive, reason = judge(heartbeat, ready=False, now=clock())
        if isinstance(heartbeat, str):
            return PollerStatus(alive, reason, "", ())
        try:
            statuses = from_json(heartbeat.get("glances", ()))
            omitted = int(heartbeat.get("omitted", 0))
            states = {
                str(state_name): int(count) for state_name, count in heartbeat.get("states", {}).items()
            }
        except (ValueError, TypeError, AttributeError) as error:
            return PollerStatus(False, f"the heartbeat is of another version: it {error}", "", ())
        # The screen lists the states of queries below the table.
        state = re.sub(r"; queries: [^;]*", "", reason)
        server = str(heartbeat.get("server") or "")
        return PollerStatus(alive, state, server, statuses, omitted=omitted, states=states)

    return read_status

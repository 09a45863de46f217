"""Look at a running poller: at one beside us by its heartbeat, or at our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.glance import Glance, from_json
from poller.health import clock, judge, read


@dataclass(frozen=True, slots=True)
class Sight:
    """A poller at one moment."""

    good: bool
    """Whether it is alive."""
    state: str
    """The poller in a line."""
    server: str
    """The server that it polls in a line; empty where nobody knows."""
    glances: Sequence[Glance]
    news: Sequence[str] = ()
    """What it said last."""


Look = Callable[[], Sight]


def beside(places: Sequence[Path]) -> Look:
    """Look at the poller whose heartbeat is at the best of `places` (see `poller.health.places`)."""

    def look() -> Sight:
        heartbeat = read(list(places))
        good, why = judge(heartbeat, ready=False, now=clock())
        if isinstance(heartbeat, str):
            return Sight(good, why, "", ())
        try:
            glances = from_json(heartbeat.get("glances", ()))
        except ValueError as error:
            return Sight(False, f"the heartbeat is of another version: it {error}", "", ())
        # How many are in which state is told below the queries.
        state = re.sub(r"; queries: [^;]*", "", why)
        return Sight(good, state, str(heartbeat.get("server") or ""), glances)

    return look

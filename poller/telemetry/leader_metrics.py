"""Metrics `poller.leader` and `poller.leader.changes`: whether this process polls."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

ELECTION = "poller.leader.election"
"""Attribute with the name of the election: pollers with the same name elect one of them."""


def register_leader_metrics(meter: Meter, name: str, read: Callable[[], tuple[bool, int]]) -> None:
    """Create the metrics of the election `name`.

    `read` returns whether this process leads, and the number of times that it became the leader or ceased to
    be it.
    """
    attributes = {ELECTION: name}

    def observe_leader(_: CallbackOptions) -> list[Observation]:
        return [Observation(int(read()[0]), attributes)]

    def observe_changes(_: CallbackOptions) -> list[Observation]:
        return [Observation(read()[1], attributes)]

    meter.create_observable_gauge(
        "poller.leader",
        [observe_leader],
        unit="{leader}",
        description="1 while this process is the leader and polls, 0 while it is a follower or ends.",
    )
    meter.create_observable_counter(
        "poller.leader.changes",
        [observe_changes],
        unit="{change}",
        description="Times that this process became the leader or ceased to be it.",
    )

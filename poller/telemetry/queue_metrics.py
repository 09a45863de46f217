"""Gauges `poller.queue.*`: targets that wait for a connection to their server."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, Meter, Observation


def register_queue_gauges(meter: Meter, read: Callable[[], tuple[int, float]]) -> None:
    """Create the gauges; `read` returns the number of waiting targets, and the seconds of the longest wait.

    They are of the process, not of its targets, and have no attribute, so their number does not grow with the
    number of servers.
    """

    def observe_targets(_: CallbackOptions) -> list[Observation]:
        return [Observation(read()[0])]

    def observe_delay(_: CallbackOptions) -> list[Observation]:
        return [Observation(read()[1])]

    meter.create_observable_gauge(
        "poller.queue.targets",
        [observe_targets],
        unit="{target}",
        description="Targets with due polls that wait for a connection to an available server.",
    )
    meter.create_observable_gauge(
        "poller.queue.delay",
        [observe_delay],
        unit="s",
        description="Time that the first of these targets has waited; 0 if none waits.",
    )

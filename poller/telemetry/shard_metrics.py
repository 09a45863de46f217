"""Gauges `poller.shard.*`: the share of the targets that this process polls."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from poller.model.shards import Shard

INDEX = "poller.shard.index"


def register_shard_gauges(meter: Meter, shard: Shard, read: Callable[[], int]) -> None:
    """Create the gauges; `read` returns the number of targets of the shard.

    Both have the index as their attribute, so that a query finds a shard without a process.
    """
    attributes = {INDEX: str(shard.index)}

    def observe_count(_: CallbackOptions) -> list[Observation]:
        return [Observation(shard.count, attributes)]

    def observe_targets(_: CallbackOptions) -> list[Observation]:
        return [Observation(read(), attributes)]

    meter.create_observable_gauge(
        "poller.shard.count",
        [observe_count],
        unit="{shard}",
        description="Number of shards among which this process divides the servers.",
    )
    meter.create_observable_gauge(
        "poller.shard.targets",
        [observe_targets],
        unit="{target}",
        description="Targets of this shard; the databases of a server count as one.",
    )

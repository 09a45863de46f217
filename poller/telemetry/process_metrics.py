"""Metrics of the process: `poller.leader`, `poller.queue.*`, `poller.shard.*` and `poller.config.*`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from opentelemetry.metrics import Counter, Meter, Observation

from poller.model.shards import Shard

ELECTION = "poller.leader.election"
"""Attribute with the name of the election: pollers with the same name elect one of them."""
INDEX = "poller.shard.index"


def register_leader(meter: Meter, election: str, read: Callable[[], tuple[bool, int]]) -> None:
    """Create the metrics of the election with this name.

    `read` returns whether this process leads, and the number of times that it became the leader or ceased to
    be it.
    """
    attributes = {ELECTION: election}
    _gauge(
        meter,
        "poller.leader",
        "{leader}",
        "1 while this process is the leader and polls, 0 while it is a follower or ends.",
        lambda: int(read()[0]),
        attributes,
    )
    meter.create_observable_counter(
        "poller.leader.changes",
        [lambda _: [Observation(read()[1], attributes)]],
        unit="{change}",
        description="Times that this process became the leader or ceased to be it.",
    )


def register_queue(meter: Meter, read: Callable[[], tuple[int, float]]) -> None:
    """Create the gauges of waiting targets; `read` returns their number and the longest wait in seconds.

    They are of the process, not of its targets, and have no attribute, so their number does not grow with the
    number of servers.
    """
    _gauge(
        meter,
        "poller.queue.targets",
        "{target}",
        "Targets with due polls that wait for a connection to an available server.",
        lambda: read()[0],
    )
    _gauge(
        meter,
        "poller.queue.delay",
        "s",
        "Time that the first of these targets has waited; 0 if none waits.",
        lambda: read()[1],
    )


def register_shard(meter: Meter, shard: Shard, read: Callable[[], int]) -> None:
    """Create the gauges of the shard; `read` returns the number of its targets.

    Both have the index as their attribute, so that a query finds a shard without a process.
    """
    attributes = {INDEX: str(shard.index)}
    _gauge(
        meter,
        "poller.shard.count",
        "{shard}",
        "Number of shards among which this process divides the servers.",
        lambda: shard.count,
        attributes,
    )
    _gauge(
        meter,
        "poller.shard.targets",
        "{target}",
        "Targets of this shard; the databases of a server count as one.",
        read,
        attributes,
    )


def register_reloads(
    meter: Meter, files: str, contents: str, read_success: Callable[[], bool], read_time: Callable[[], float]
) -> Counter:
    """Create the metrics about reloads of `files` with their `contents`, as text; return their counter.

    `read_success` returns whether the last reload was applied, `read_time` when the running configuration was
    read.
    """
    _gauge(
        meter,
        "poller.config.reload.success",
        "{reload}",
        f"1 while the {files} on disk are those that run, 0 after a rejected reload.",
        lambda: int(read_success()),
    )
    _gauge(
        meter,
        "poller.config.reload.last_success",
        "s",
        f"Time at which the running {contents} were read, in seconds since 1970.",
        read_time,
    )
    return meter.create_counter(
        "poller.config.reloads", unit="{reload}", description=f"Reloads of the {files} by outcome."
    )


def _gauge(
    meter: Meter,
    name: str,
    unit: str,
    description: str,
    read: Callable[[], float],
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Create a gauge that reads its value at each collection."""
    meter.create_observable_gauge(
        name, [lambda _: [Observation(read(), attributes)]], unit=unit, description=description
    )

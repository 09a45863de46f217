"""Diagnosis of the schedule: whether the polls of all targets fit into the connections of their servers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from poller.model.diagnostics import Diagnostic
from poller.model.target import Target
from poller.model.text import counted

_ADVICE = "lengthen the intervals, or give some queries the key `targets`"


@dataclass(frozen=True, slots=True)
class Load:
    """One target, and the number of connections that its polls keep busy on average."""

    target: Target
    busy: float


def examine(servers: Mapping[str, Sequence[Load]], max_connections: int) -> Iterator[Diagnostic]:
    """Yield a warning for each server whose polls do not fit, and a finding about all of them.

    `max_connections` is POLLER_MAX_CONNECTIONS.
    """
    for server, loads in servers.items():
        declared = sorted({load.target.connections for load in loads})
        busy = sum(load.busy for load in loads)
        targets = counted(len(loads), "target")
        facts = {"targets": len(loads), "connections": declared[0], "busy": round(busy, 3)}
        if len(declared) > 1:
            yield Diagnostic(
                "warning",
                "connections",
                f"its targets declare connections {' and '.join(map(str, declared))}; the smallest is used",
                "write the same number for every target of a server",
                server,
                facts=facts,
            )
        if busy > declared[0]:
            yield Diagnostic(
                "warning",
                "schedule",
                f"the polls of {targets} keep {busy:.1f} connections busy, but connections is {declared[0]}, "
                "so ticks are late or skipped",
                f"write connections: {math.ceil(busy)}, {_ADVICE}",
                server,
                facts=facts,
            )
    busy = sum(load.busy for loads in servers.values() for load in loads)
    targets = counted(sum(map(len, servers.values())), "target")
    detail = f"the polls of {targets} on {counted(len(servers), 'server')} keep {busy:.2g} connections busy"
    facts = {"servers": len(servers), "max_connections": max_connections, "busy": round(busy, 3)}
    if busy > max_connections:
        detail += f", but POLLER_MAX_CONNECTIONS is {max_connections}, so ticks are late or skipped"
        advice = f"set POLLER_MAX_CONNECTIONS={math.ceil(busy)}, {_ADVICE}"
        yield Diagnostic("warning", "schedule", detail, advice, facts=facts)
    else:
        yield Diagnostic("ok", "schedule", f"{detail}, of at most {max_connections}", facts=facts)

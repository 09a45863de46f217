"""Read the planner's plan of a statement: its cost, and what it scans from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from poller.overflow import Rows


@dataclass(frozen=True, slots=True)
class Scan:
    """One relation that is read from end to end."""

    relation: tuple[str, str]
    """Schema and name."""
    condition: str = ""
    """What each row is compared with, as the server words it; empty where all are taken."""
    rows: float = 0.0
    """Rows that the planner expects to be left, of all workers together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner would do."""

    cost: float
    """The total, in the planner's units (PostgreSQL manual, "Using EXPLAIN")."""
    scans: tuple[Scan, ...] = ()


def plan_query(sql: str) -> str:
    """The statement that plans `sql` without running it; VERBOSE names each relation's schema."""
    return f"EXPLAIN (VERBOSE, FORMAT JSON) {sql}"


def read_plan(rows: Rows) -> Plan:
    """Read what `plan_query` came to."""
    top = json.loads((rows.values[0][0] or b"").decode(errors="replace"))[0]["Plan"]
    return Plan(float(top["Total Cost"]), tuple(_scans(top, 1)))


def _scans(node: dict[str, Any], processes: int) -> Iterator[Scan]:
    # Rows below Gather are those of one process: the workers and the leader, who helps them.
    processes = processes * (1 + node.get("Workers Planned", 0))
    if node["Node Type"] == "Seq Scan":
        expected = node["Plan Rows"] * (processes if node.get("Parallel Aware") else 1)
        relation = (node.get("Schema", ""), node["Relation Name"])
        yield Scan(relation, node.get("Filter", ""), float(expected))
    for inner in node.get("Plans", []):
        yield from _scans(inner, processes)

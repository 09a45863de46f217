"""Planner's plan of a statement: its cost and its sequential scans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from poller.model.result import MAX_NODES, PlanShape
from poller.model.rows import Rows

_LONGEST_NAME = 200
"""Characters of a node's name with its relation and index."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One sequential scan of a relation."""

    relation: tuple[str, str]
    """Schema and name."""
    condition: str = ""
    """The filter on each row, in the server's text; empty if there is no filter."""
    rows: float = 0.0
    """Rows that the planner expects after the filter, from all workers together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The planner's plan of one statement."""

    cost: float
    """The total cost in the planner's units: 1 is one sequentially read page (PostgreSQL manual, EXPLAIN)."""
    shape: PlanShape
    scans: tuple[Scan, ...] = ()


def plan_query(sql: str, *, verbose: bool = False) -> str:
    """Return the statement that plans `sql` without running it.

    With `verbose`, the plan has the schema of each relation and the output of each node. That can exceed the
    size limit of results, and foreign data wrappers may ask their server.
    """
    return f"EXPLAIN ({'VERBOSE, ' if verbose else ''}FORMAT JSON) {sql}"


def read_plan(rows: Rows) -> Plan:
    """Read the result of `plan_query`; names of relations may be in any encoding."""
    top = json.loads((rows.values[0][0] or b"").decode(errors="replace"))[0]["Plan"]
    return Plan(float(top["Total Cost"]), _shape(top), tuple(_scans(top, 1)))


def _shape(top: dict[str, Any]) -> PlanShape:
    digest, nodes = hashlib.sha256(), list[str]()
    pending = [(0, top)]
    while pending:
        depth, node = pending.pop()
        name = _name(node)
        digest.update(f"{depth} {name}\n".encode(errors="replace"))
        if len(nodes) < MAX_NODES:
            nodes.append(name[:_LONGEST_NAME])
        pending.extend((depth + 1, inner) for inner in reversed(node.get("Plans", [])))
    return PlanShape(digest.hexdigest(), tuple(nodes))


def _name(node: dict[str, Any]) -> str:
    words = ("using", node.get("Index Name")), ("on", node.get("Relation Name"))
    return " ".join([node["Node Type"], *(f"{word} {name}" for word, name in words if name)])


def _scans(node: dict[str, Any], processes: int) -> Iterator[Scan]:
    # Row counts below Gather are per process: the workers, and the leader, which also executes the plan.
    processes = processes * (1 + node.get("Workers Planned", 0))
    if node["Node Type"] == "Seq Scan":
        expected = node["Plan Rows"] * (processes if node.get("Parallel Aware") else 1)
        relation = (node.get("Schema", ""), node["Relation Name"])
        yield Scan(relation, node.get("Filter", ""), float(expected))
    for inner in node.get("Plans", []):
        yield from _scans(inner, processes)

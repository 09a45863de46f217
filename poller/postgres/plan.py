"""Planner's plan of a statement: its cost and its sequential scans."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
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
    """Read the result of `plan_query`; names of relations may be in any encoding.

    A statement with parameters has a plan for each run: the cost is their sum, and the shape that of all.
    """
    tops = [json.loads((row[0] or b"").decode(errors="replace"))[0]["Plan"] for row in rows.values]
    scans = dict.fromkeys(scan for top in tops for scan in _scans(top, 1))
    return Plan(sum(float(top["Total Cost"]) for top in tops), _shape(tops), tuple(scans))


def _shape(tops: Sequence[dict[str, Any]]) -> PlanShape:
    shapes = [tuple(_nodes(top)) for top in tops]
    digest = hashlib.sha256()
    for depth, name in itertools.chain(*shapes):
        digest.update(f"{depth} {name}\n".encode(errors="replace"))
    different = itertools.islice(itertools.chain(*dict.fromkeys(shapes)), MAX_NODES)
    return PlanShape(digest.hexdigest(), tuple([name[:_LONGEST_NAME] for _, name in different]))


def _nodes(top: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the depth and name of each node of a plan, from the root."""
    pending = [(0, top)]
    while pending:
        depth, node = pending.pop()
        yield depth, _name(node)
        pending.extend((depth + 1, inner) for inner in reversed(node.get("Plans", [])))


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

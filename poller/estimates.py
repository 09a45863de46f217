"""Let the planner's cost decide whether a query is run or its estimate."""

from __future__ import annotations

import json

from poller.overflow import Rows


def cost_query(sql: str) -> str:
    """The statement that plans `sql` without running it (PostgreSQL manual, EXPLAIN)."""
    return f"EXPLAIN (FORMAT JSON) {sql}"


def read_cost(rows: Rows) -> float:
    """The total cost in the planner's units, of which a sequentially read page is one."""
    plan = (rows.values[0][0] or b"").decode(errors="replace")  # it names relations, in any encoding
    return float(json.loads(plan)[0]["Plan"]["Total Cost"])

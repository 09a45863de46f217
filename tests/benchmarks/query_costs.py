"""Cost of each shipped query for the database as its tables grow, exact and estimated.

    python -m tests.benchmarks.query_costs [--rows 1000000,10000000] [--json FILE]

It creates its own server, fills users, devices, messages (512 bytes each, half of them expired) and
attachments with so many rows each, runs every query three times, and prints the median. The next decade is
extrapolated: the last time, multiplied by the growth of the planner's cost in the last decade. The tables are
unlogged, freshly vacuumed, and larger than shared_buffers. 10 million rows take 12 GB and a quarter of an
hour.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml

from poller.config.queries.files import files_of
from poller.demo.cluster import Cluster
from tests.benchmarks.figures import cpu_of_tree
from tests.benchmarks.loads import ROOT

RUNS = 3
ESTIMATES = {
    "users": "SELECT reltuples::bigint AS registered FROM pg_class WHERE oid = 'users'::regclass",
    "devices": "SELECT reltuples::bigint AS registered FROM pg_class WHERE oid = 'devices'::regclass",
    "pending_messages": (
        "SELECT 100 * count(*) AS pending FROM messages TABLESAMPLE SYSTEM (1) WHERE expires_at > now()"
    ),
    "attachments": (
        "SELECT 100 * count(*) AS stored FROM attachments TABLESAMPLE SYSTEM (1) WHERE expires_at >= now()"
    ),
    "attachments_bytes": (
        "SELECT 100 * coalesce(sum(size_bytes), 0) AS stored_bytes FROM attachments TABLESAMPLE SYSTEM (1)"
        " WHERE expires_at >= now()"
    ),
}
"""A possible `estimate.sql` for each: the planner's own count, or one page of a hundred."""
_EXPLAIN = b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
_TABLES = {"users", "devices", "messages", "attachments"}
_SETTINGS = {
    "shared_buffers": "512MB",
    "maintenance_work_mem": "512MB",
    "autovacuum": "off",
    "max_wal_size": "4GB",
}


@dataclass
class Cost:
    """Cost of one statement at one size."""

    milliseconds: float
    cpu: float
    """Milliseconds of the server's CPU, including parallel workers."""
    pages: int
    """Pages of 8 kB, in shared_buffers or not."""
    plan: str
    planned: float
    """Cost estimate of the planner."""
    value: float


@dataclass
class Costs:
    """Costs of one query, by number of rows."""

    exact: dict[int, Cost] = field(default_factory=dict)
    estimated: dict[int, Cost] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.query_costs")
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    costs = measured([int(rows) for rows in options.rows.split(",")])
    if options.json:
        options.json.write_text(json.dumps(costs, indent=2, default=vars) + "\n")
    print(as_markdown(costs))


def measured(sizes: list[int]) -> dict[str, Costs]:
    """Return the costs of every query whose tables are filled here, by name."""
    costs: dict[str, Costs] = {}
    with Cluster(primary=_SETTINGS) as cluster:
        for rows in sizes:
            print(f"filling the tables with {rows:,} rows each", file=sys.stderr, flush=True)
            with psycopg.connect(cluster.primary.dsn(), autocommit=True) as connection:
                for statement in _tables(rows):
                    connection.execute(statement.encode())
                for name, sql in _queries():
                    costs.setdefault(name, Costs()).exact[rows] = _cost(connection, cluster.primary.pid, sql)
                    if name in ESTIMATES:
                        cost = _cost(connection, cluster.primary.pid, ESTIMATES[name])
                        costs[name].estimated[rows] = cost
    return costs


def as_markdown(costs: dict[str, Costs]) -> str:
    """Return a table with time, and CPU in brackets; the column of the next decade is extrapolated."""
    sizes = sorted(next(iter(costs.values())).exact)
    heads = [f"{rows:,}" for rows in sizes]
    if len(sizes) > 1:
        heads.append(f"{sizes[-1] * 10:,} (extrapolated)")
    lines = [
        f"| query | {' | '.join(heads)} | plan at {sizes[-1]:,} | estimate at {sizes[-1]:,} | its error |",
        f"|---|{'---|' * (len(heads) + 3)}",
    ]
    for name, cost in costs.items():
        last, estimate = cost.exact[sizes[-1]], cost.estimated.get(sizes[-1])
        cells = [_cell(cost.exact[rows].milliseconds, cost.exact[rows].cpu) for rows in sizes]
        if len(sizes) > 1:
            growth = _growth(cost.exact, sizes)
            cells.append(_cell(last.milliseconds * growth, last.cpu * growth))
        cells.append(f"{last.plan}, {last.pages:,} pages")
        if estimate is None:
            cells += ["-", "-"]
        else:
            error = abs(estimate.value - last.value) / last.value if last.value else 0.0
            cells += [_cell(estimate.milliseconds, estimate.cpu), f"{error:.1%}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _queries() -> Iterator[tuple[str, str]]:
    for folder in ("queries", "queries/extended"):
        for file in files_of(ROOT / folder):
            for query in yaml.safe_load(file.read_text())["queries"]:
                needed = query.get("requires", {}).get("columns", {})
                # Inboxes of users belong to releases before the table of devices.
                if needed.keys() <= _TABLES and "recipient_id" not in needed.get("messages", []):
                    yield query["name"], query["sql"]


def _tables(rows: int) -> Iterator[str]:
    series = f"generate_series(1, {rows}) AS i"
    yield "DROP TABLE IF EXISTS users, devices, messages, attachments"
    yield (
        "CREATE UNLOGGED TABLE users AS SELECT gen_random_uuid() AS id, 'user_' || i AS username,"
        f" repeat('h', 97) AS password_hash, now() AS created_at FROM {series}"
    )
    yield (
        "CREATE UNLOGGED TABLE devices AS SELECT gen_random_uuid() AS id, gen_random_uuid() AS user_id,"
        f" 'device' AS name, now() AS created_at FROM {series}"
    )
    yield (
        "CREATE UNLOGGED TABLE messages AS SELECT gen_random_uuid() AS id, gen_random_uuid() AS sender_id,"
        f" md5((i % ({rows} / 10 + 1))::text)::uuid AS device_id,"
        " decode(repeat(md5(i::text), 32), 'hex') AS content,"
        " now() - i % 30 * interval '1 day' AS created_at,"
        f" now() + (i % 60 - 30) * interval '1 day' + interval '1 hour' AS expires_at FROM {series}"
    )
    yield (
        "CREATE UNLOGGED TABLE attachments AS SELECT gen_random_uuid() AS id,"
        f" now() + (i % 30 + 1) * interval '1 day' AS expires_at, (i % 1000000)::bigint AS size_bytes"
        f" FROM {series}"
    )
    for table in sorted(_TABLES):
        yield f"ALTER TABLE {table} ADD PRIMARY KEY (id)"
    yield "CREATE INDEX ON messages (device_id, created_at)"
    yield "CREATE INDEX idx_messages_expires_at ON messages (expires_at)"
    yield "CREATE INDEX idx_attachments_expires_at ON attachments (expires_at)"
    yield "VACUUM (ANALYZE) users, devices, messages, attachments"
    yield "CHECKPOINT"


def _cost(connection: psycopg.Connection[Any], server: int, sql: str) -> Cost:
    row = connection.execute(sql.encode()).fetchone()
    value = float(row[0]) if row and row[0] is not None else 0.0
    times, used = [], []
    for _ in range(RUNS):
        before = cpu_of_tree(server)
        row_of_plan = connection.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + sql.encode()
        ).fetchone()
        used.append(1e3 * (cpu_of_tree(server) - before))
        explained = row_of_plan[0][0] if row_of_plan else {}
        times.append(explained["Execution Time"] + explained["Planning Time"])
    plan = explained["Plan"]
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return Cost(
        statistics.median(times), statistics.median(used), pages, _scan(plan), plan["Total Cost"], value
    )


def _scan(plan: dict[str, Any]) -> str:
    """Return the node that reads the table, in PostgreSQL's notation."""
    below = plan.get("Plans")
    if below:
        return _scan(below[0])
    parallel = "Parallel " if plan.get("Parallel Aware") else ""
    index = f" {plan['Index Name']}" if "Index Name" in plan else ""
    return f"{parallel}{plan['Node Type']}{index}"


def _growth(costs: dict[int, Cost], sizes: list[int]) -> float:
    """Return the planner's growth factor for a table ten times as large, from the last two sizes."""
    before, last = costs[sizes[-2]], costs[sizes[-1]]
    growth: float = (last.planned / before.planned) ** (1 / math.log10(sizes[-1] / sizes[-2]))
    return growth


def _cell(milliseconds: float, cpu: float) -> str:
    return f"{_duration(milliseconds)} ({_duration(cpu)})"


def _duration(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    if milliseconds < 0.1:
        return "0 ms"
    return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


if __name__ == "__main__":
    main()

"""Resource usage of a process that polls many times as fast as possible, under churn and faults.

`python -m tests.bed.soak DSN ENDPOINT FOLDER POLLS` writes one JSON object a line, the last at the end.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import psycopg

from poller.config.load_settings import load
from poller.config.queries.diff import compare
from poller.config.queries.load import open_catalog
from poller.daemon.target_factory import TargetFactory
from poller.telemetry.logging import configure

SETS = 20
"""New attribute sets in each poll."""
EXPORT_EVERY, KILL_EVERY, RELOAD_EVERY, MEASUREMENTS = 25, 500, 100, 10
QUERIES = {
    "churn": f"SELECT md5(random()::text) AS k, g AS n FROM generate_series(1, {SETS}) g",
    "fails": "SELECT 1 / (random() * 0)::int AS n, 'x' AS k",
    "refuses": "SELECT 'NaN'::float8 AS n, md5(random()::text) AS k",
}


def main(dsn: str, endpoint: str, folder: Path, polls: int) -> None:
    _write(folder, QUERIES)
    configure("json", "error")
    settings = load(
        {
            "POLLER_DATABASE_URL": dsn,
            "POLLER_OTLP_ENDPOINT": endpoint,
            "POLLER_QUERIES": str(folder),
            "POLLER_STATE_DIR": str(folder / "state"),
            "POLLER_MAX_DUTY_CYCLE": "100%",
        }
    )
    catalog = open_catalog(settings)
    factory = TargetFactory(settings)
    push = factory.exporter
    assert push is not None
    cycle = factory.open(settings.only_target(), catalog.queries).cycle
    good = 0
    with psycopg.connect(dsn, autocommit=True, application_name="soak") as killer:
        for number in range(1, polls + 1):
            results = {result.query.name: result for result in cycle.run(catalog.queries)}
            good += results["churn"].outcome == "ok"
            if number % EXPORT_EVERY == 0:
                push.flush(30)
            if number % KILL_EVERY == 0:
                killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'obscura-poller' AND datname = current_database()"
                )
            if number % RELOAD_EVERY == 0:
                # A different query appears and disappears each time.
                gone = "fails" if number % (2 * RELOAD_EVERY) else "refuses"
                _write(folder, {name: sql for name, sql in QUERIES.items() if name != gone})
                before, catalog = catalog, open_catalog(settings)
                cycle.swap(catalog.queries, compare(before.queries, catalog.queries).dropped)
            if number % (polls // MEASUREMENTS) == 0:
                _print_usage(number, good)
    cycle.source.close()
    push.shutdown(30)
    factory.telemetry.shutdown(30)


def _write(folder: Path, queries: Mapping[str, str]) -> None:
    content = {"queries": [_query(name, sql) for name, sql in queries.items()]}
    (folder / "queries.yaml").write_text(json.dumps(content))


def _query(name: str, sql: str) -> dict[str, object]:
    metric = {
        "name": f"soak_{name}", "description": name, "unit": "{row}", "value_column": "n",
        "attribute_columns": ["k"],
    }  # fmt: skip
    return {"name": name, "sql": sql, "interval": "1h", "metrics": [metric]}


def _print_usage(polls: int, good: int) -> None:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    usage = {
        "polls": polls,
        "good": good,
        "rss": pages * os.sysconf("SC_PAGESIZE"),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
    }
    print(json.dumps(usage), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))

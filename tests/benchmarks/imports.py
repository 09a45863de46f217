"""Memory of each library of the daemon: resident size of a new process after the import.

    python -m tests.benchmarks.imports

Each row adds its imports to the rows above it, as the daemon does; the last rows are libraries that another
process imports for the daemon. Medians of five, in MB of a million bytes, as a table.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from statistics import median

RUNS = 5
DAEMON = {
    "Python": "",
    "its standard library: logging, JSON, regular expressions, threads, hashes, subprocess": (
        "import dataclasses, datetime, hashlib, importlib.metadata, json, logging, pickle, re, subprocess"
    ),
    "asyncio, which psycopg and gRPC import": "import asyncio",
    "psycopg": "import psycopg",
    "APScheduler": (
        "import apscheduler.executors.pool, apscheduler.schedulers.background, apscheduler.triggers.interval"
    ),
    "SQLite, for the spool": "import sqlite3",
    "OpenTelemetry's SDK": "import opentelemetry.sdk.metrics.export",
    "OTLP's messages": "import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2",
    "the poller": "import poller.daemon.run, poller.otlp.exporter, poller.telemetry.status_metrics",
}
BY_PROTOCOL = {"gRPC": "import poller.otlp.grpc", "or, for HTTP, requests": "import poller.otlp.http"}
ELSEWHERE = {
    "no more: pydantic and its settings": "import pydantic, pydantic_settings",
    "no more: the command line": "import typer.main",
    "no more: YAML and PostgreSQL's grammar": "import pgparse, yaml",
    "no more: what reads by them": "import poller.cli.app, poller.cli.run, poller.config.queries.load",
}
_REPORT = """
words = open("/proc/self/smaps_rollup").read().split()
print(*(int(words[words.index(name) + 1]) * 1024 / 1e6 for name in ("Rss:", "Anonymous:")))
"""


def rows() -> Iterator[tuple[str, float, float]]:
    """Yield the name of each import, and the resident and anonymous memory after it, in MB."""
    above = "import gc\ngc.disable()"
    for name, imports in DAEMON.items():
        above += f"\n{imports}"
        yield name, *_measured(above)
    for name, imports in BY_PROTOCOL.items():
        yield name, *_measured(f"{above}\n{imports}")
    above += f"\n{BY_PROTOCOL['gRPC']}"
    for name, imports in ELSEWHERE.items():
        above += f"\n{imports}"
        yield name, *_measured(above)


def _measured(code: str) -> tuple[float, float]:
    runs = [
        subprocess.run(
            [sys.executable, "-c", f"{code}\n{_REPORT}"], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(RUNS)
    ]
    resident, own = (median(map(float, figures)) for figures in zip(*runs, strict=True))
    return resident, own


def main() -> None:
    print("| imported, each on top of those above | RSS, MB | of it its own |\n|---|---|---|")
    for name, resident, own in rows():
        print(f"| {name} | {resident:.1f} | {own:.1f} |", flush=True)


if __name__ == "__main__":
    main()

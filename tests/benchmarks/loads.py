"""Loads: queries with the same text for every program, over tables of a known size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import yaml

from poller.config.queries.files import files_of

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Query:
    """A query with a number in each row, and at most one label."""

    name: str
    sql: str
    value: str
    label: str | None = None


@dataclass(frozen=True)
class Load:
    """The queries of one poll."""

    name: str
    queries: Sequence[Query]
    pace: int = 1
    """Seconds between two polls of a program that polls by itself."""


def trivial(count: int) -> Load:
    """Return `count` queries with almost no cost on the server."""
    names = [f"trivial_{number}" for number in range(count)]
    queries = [
        Query(name, f"SELECT {number} AS n{number}", f"n{number}") for number, name in enumerate(names)
    ]
    return Load(f"{count} trivial", queries)


def wide(series: int) -> Load:
    """Return one query whose result has `series` rows."""
    sql = f"SELECT 'device-' || i AS device, i AS n FROM generate_series(1, {series}) AS i"
    return Load(f"{series} series", [Query("wide", sql, "n", "device")])


def state(pace: int) -> Load:
    """Return the four shipped state queries."""
    entries = [
        query for file in files_of(ROOT / "queries") for query in yaml.safe_load(file.read_text())["queries"]
    ]
    queries = [
        Query(entry["name"], entry["sql"].strip(), entry["metrics"][0]["value_column"]) for entry in entries
    ]
    return Load(f"{len(queries)} state", queries, pace=pace)


def fill(primary: str, scale: float) -> None:
    """Create the server's tables in the database at DSN `primary`.

    Scale 1 means a million users, five million messages, half of them expired, and half a million
    attachments.
    """
    users, messages, attachments = (max(1, round(scale * rows)) for rows in (1_000_000, 5_000_000, 500_000))
    script = f"""
        CREATE TABLE users (id uuid PRIMARY KEY, username text NOT NULL, created_at timestamptz);
        CREATE TABLE messages (
            id uuid PRIMARY KEY, device_id int NOT NULL, content bytea NOT NULL,
            created_at timestamptz NOT NULL, expires_at timestamptz NOT NULL
        );
        CREATE TABLE attachments (id uuid PRIMARY KEY, expires_at timestamptz NOT NULL, size_bytes bigint);
        INSERT INTO users SELECT gen_random_uuid(), 'user_' || i FROM generate_series(1, {users}) AS i;
        INSERT INTO messages
            SELECT gen_random_uuid(), i % 100000, decode(repeat(md5(i::text), 2), 'hex'), now(),
                now() + (i % 60 - 30) * interval '1 day' - interval '1 hour'
            FROM generate_series(1, {messages}) AS i;
        INSERT INTO attachments
            SELECT gen_random_uuid(), now() + interval '20 days', i
            FROM generate_series(1, {attachments}) AS i;
        CREATE INDEX ON messages (expires_at);
        CREATE INDEX ON attachments (expires_at);
        VACUUM ANALYZE users, messages, attachments
    """
    with psycopg.connect(primary, autocommit=True) as connection:
        for statement in script.split(";"):
            connection.execute(statement.encode())

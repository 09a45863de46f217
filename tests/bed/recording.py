"""Recorded day of a poller: the samples from which the pictures of the dashboards are drawn.

`python -m tests.bed.recording` records the samples again, in about five minutes. The daemon polls a standby
while the tables of the messaging server change and the incidents of `_INCIDENTS` happen.

The run is stretched: one second of the run is five minutes of the recording, so that an interval of 1 s
becomes the default interval of 5 min. Only times are stretched: those of the samples, those that are values
(`*.last_success`), and the interval in the name of a tick. Durations and lags are as measured. The standby is
called replica:5432, because its address is a folder.
"""

from __future__ import annotations

import lzma
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path

import psycopg

from poller.demo.cluster import Cluster
from poller.receiver.answers import ACCEPT, UNAVAILABLE, partial
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.messaging import SCHEMA
from tests.bed.postgres import Database, Site
from tests.bed.process import ROOT, Process
from tests.bed.prometheus import openmetrics

FILE = Path(__file__).parent / "recording.txt.xz"
"""The samples; see `packed`."""
STRETCH = 300
HOUR = 3600 / STRETCH
BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Time of the first sample."""
END = BEGIN + 24 * 3600

_QUERIES = """
queries:
  - name: devices_by_name
    sql: SELECT name, count(*) AS devices FROM devices GROUP BY name ORDER BY devices DESC
    max_series: 3
    overflow: other
    metrics:
      - name: devices_by_name
        description: Devices.
        unit: "{device}"
        value_column: devices
        attribute_columns: [name]
  - name: devices_guessed
    sql: SELECT count(*) AS devices FROM devices
    estimate: {sql: "SELECT reltuples AS devices FROM pg_class WHERE relname = 'devices'", above_cost: 1}
    metrics:
      - {name: devices_guessed, description: Devices., unit: "{device}", value_column: devices}
  - name: push_tokens
    sql: SELECT count(*) AS tokens FROM push_tokens
    metrics:
      - {name: push_tokens, description: Tokens., unit: "{token}", value_column: tokens}
"""
_START = """
ALTER TABLE attachments DROP COLUMN size_bytes;
INSERT INTO users (username, password_hash) SELECT 'user_' || g, 'x' FROM generate_series(1, 4000) g;
INSERT INTO devices (user_id, name)
    SELECT id, (ARRAY['phone', 'phone', 'phone', 'laptop', 'laptop', 'tablet', 'watch', 'car'])
        [1 + hashtext(username) & 7] FROM users;
INSERT INTO attachments (expires_at) SELECT now() + g * interval '1 s' FROM generate_series(1, 900) g;
ANALYZE;
"""
_LOAD = """
INSERT INTO users (username, password_hash)
    SELECT 'new_' || floor(random() * 1e12), 'x' FROM generate_series(1, {users});
INSERT INTO messages (sender_id, sender_device_id, device_id, submission_id, content, expires_at)
    SELECT user_id, id, id, gen_random_uuid(), 'x', now() + interval '30 days'
    FROM devices LIMIT greatest(0, {messages} - (SELECT count(*) FROM messages));
DELETE FROM messages WHERE id IN (
    SELECT id FROM messages LIMIT greatest(0, (SELECT count(*) FROM messages) - {messages}));
INSERT INTO attachments (expires_at) SELECT now() + interval '200 s' FROM generate_series(1, {attachments});
"""
_SIZES = (
    "UPDATE attachments SET size_bytes = 20000 + abs(hashtext(id::text)) % 400000 WHERE size_bytes IS NULL"
)


class _Day:
    """A cluster, a daemon and a collector, and the incidents that happen to them."""

    def __init__(self, cluster: Cluster, receiver: Receiver, folder: Path) -> None:
        cluster.primary.execute("CREATE DATABASE messaging")
        self.database = Database("messaging", Site(cluster.primary.dsn(), cluster.standby.dsn()))
        self.database.execute(SCHEMA.read_text(encoding="utf-8") + _START)
        self.receiver, self.file = receiver, folder / "queries.yaml"
        self.sized = False
        self.lock: psycopg.Connection | None = None
        self.change_tables(0)
        self.database.replayed()

    def lose_collector(self) -> None:
        self.receiver.answer = UNAVAILABLE

    def recover_collector(self) -> None:
        self.receiver.answer = ACCEPT

    def break_queries(self) -> None:
        self.file.write_text("queries: none", encoding="utf-8")

    def write_queries(self) -> None:
        self.file.write_text(_QUERIES, encoding="utf-8")

    def pause_replay(self) -> None:
        self.database.ask_standby("SELECT pg_wal_replay_pause()")

    def resume_replay(self) -> None:
        self.database.ask_standby("SELECT pg_wal_replay_resume()")

    def migrate(self) -> None:
        self.database.execute(
            (ROOT / "deploy/migrations/attachments_size_bytes.sql").read_text(encoding="utf-8")
        )

    def fill_sizes(self) -> None:
        self.sized = True

    def lock_messages(self) -> None:
        self.lock = psycopg.connect(self.database.primary_dsn)
        self.lock.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")

    def unlock_messages(self) -> None:
        assert self.lock is not None
        self.lock.close()
        self.lock = None

    def rename_tokens(self) -> None:
        self.database.execute("ALTER TABLE push_tokens RENAME TO push_tokens_2")

    def reject_points(self) -> None:
        self.receiver.answer_next(*[partial(3, "out of order")] * 5)

    def change_tables(self, hour: float) -> None:
        """Change the tables as the server's clients would: users register, messages wait at night."""
        night = 0.5 + 0.5 * math.cos(hour / 24 * 2 * math.pi)
        load = _LOAD.format(users=int(1 + 3 * (1 - night)), messages=int(150 + 900 * night), attachments=3)
        if self.lock:
            load = load.partition("INSERT INTO messages")[0]
        self.database.execute(load + (_SIZES if self.sized else ""))


_INCIDENTS: list[tuple[float, Callable[[_Day], None]]] = [
    (2, _Day.lose_collector),
    (4, _Day.recover_collector),
    (6, _Day.break_queries),
    (8, _Day.write_queries),
    (9, _Day.pause_replay),
    (10.5, _Day.resume_replay),
    (11.5, _Day.migrate),
    (12.5, _Day.fill_sizes),
    (14, _Day.lock_messages),
    (15.5, _Day.unlock_messages),
    (18, _Day.reject_points),
    (22, _Day.rename_tokens),
]
"""Incidents and their hours."""


def record() -> list[Point]:
    """Run the daemon for a stretched day; return the data points that the collector received."""
    with Cluster(None) as cluster, Receiver() as receiver, tempfile.TemporaryDirectory() as folder:
        day = _Day(cluster, receiver, Path(folder))
        day.write_queries()
        process = Process(
            [sys.executable, "-m", "poller", "run"],
            env={
                "POLLER_DATABASE_URL": day.database.standby_dsn,
                "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "POLLER_QUERIES": f"shipped:{day.file}",
                "POLLER_INSTANCE": "eu-1",
                "POLLER_INTERVAL": "1s",
                "POLLER_TIMEOUT": "1s",
                "POLLER_EXPORT_INTERVAL": "200ms",
            },
        )
        try:
            receiver.wait_for(
                lambda points: {point.metric for point in points} >= {"users_total", "push_tokens"}
            )
            incidents, begin, first = list(_INCIDENTS), time.monotonic(), time.time_ns()
            while (hour := (time.monotonic() - begin) / HOUR) < 24:
                while incidents and incidents[0][0] <= hour:
                    incidents.pop(0)[1](day)
                day.change_tables(hour)
                print(f"\r{hour:5.1f} h", end="", file=sys.stderr, flush=True)
                time.sleep(0.25)
            return [point for point in receiver.points() if point.time_unix_nano >= first]
        finally:
            process.close()


def stretched(points: list[Point]) -> Iterator[Point]:
    begin = min(point.time_unix_nano for point in points) / 1e9

    def stretch(at: float) -> float:
        return BEGIN + (at - begin) * STRETCH

    for point in points:
        attributes = dict(point.attributes)
        if "server.address" in attributes:
            attributes |= {"server.address": "replica", "server.port": 5432}
        if "poller.tick.name" in attributes:
            attributes["poller.tick.name"] = str(attributes["poller.tick.name"]).replace("/1s", "/5m")
        value = point.value
        if point.metric.endswith("last_success") and isinstance(value, (int, float)):
            value = round(stretch(value))
        at = round(stretch(point.time_unix_nano / 1e9))
        yield replace(point, attributes=attributes, value=value, time_unix_nano=at * 10**9)


def packed(samples: str) -> str:
    """Short form of OpenMetrics text: the times, then a line for each series with its values and counts.

    `_` is no value. Numbers have six digits, except for integers.
    """
    series: dict[str, dict[str, str]] = {}
    for line in samples.splitlines()[:-1]:
        if line.startswith("#"):
            series[line] = {}
        else:
            name, value, at = line.rsplit(" ", 2)
            number = float(value)
            series.setdefault(name, {})[at] = f"{number:.0f}" if number.is_integer() else f"{number:.6g}"
    times = sorted({at for values in series.values() for at in values}, key=float)
    lines = [" ".join(f"{float(at) - BEGIN:.0f}" for at in times)]
    for name, values in series.items():
        runs = groupby(values.get(at, "_") for at in times) if values else ()
        lines.append("\t".join([name, *(f"{value}x{len(list(run))}" for value, run in runs)]))
    return "\n".join(lines)


def unpacked(text: str) -> str:
    """Return the OpenMetrics text of `packed`."""
    times, *series = text.splitlines()
    lines: list[str] = []
    for line in series:
        name, *runs = line.split("\t")
        if not runs:
            lines.append(name)
        at = iter(times.split(" "))
        for run in runs:
            value, count = run.split("x")
            seconds = list(islice(at, int(count)))
            if value != "_":
                lines += [f"{name} {value} {BEGIN + int(second):.0f}" for second in seconds]
    return "\n".join([*lines, "# EOF", ""])


if __name__ == "__main__":
    text = packed(openmetrics(stretched(record())))
    FILE.write_bytes(lzma.compress(text.encode()))
    print(f"\n{FILE.stat().st_size:,} bytes", file=sys.stderr)

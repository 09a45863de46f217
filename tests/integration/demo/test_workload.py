"""The demo's workload changes every metric, is reproducible by its seed, and ends cleanly."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random
from typing import Any, Protocol

import psycopg
import pytest

from poller.demo.workload import FULL_STOCK, Workload, run
from tests.bed.process import ROOT

SCHEMA = ROOT / "poller/demo/schema.sql"
TABLES = (
    "users", "devices", "identity_keys", "signed_pre_keys", "one_time_pre_keys", "messages", "attachments",
    "push_tokens", "refresh_tokens", "backups",
)  # fmt: skip
PATIENCE = 30.0
"""Seconds until a test gives up waiting for what must come."""


class Database(Protocol):
    """The part of the fixture `database` that these tests use."""

    @property
    def primary_dsn(self) -> str: ...


@contextmanager
def tables(dsn: str, schema: str = "played") -> Iterator[str]:
    """Create the demo's empty tables in a new schema; return a connection string for it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        connection.execute(f"SET search_path TO {schema}".encode())
        connection.execute(SCHEMA.read_bytes())
        try:
            yield psycopg.conninfo.make_conninfo(dsn, options=f"-c search_path={schema}")
        finally:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@pytest.fixture
def stage(database: Database) -> Iterator[str]:
    with tables(database.primary_dsn) as dsn:
        yield dsn


def one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def play(dsn: str, steps: int, seed: int = 0, **how: Any) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        workload = Workload(connection, Random(seed), **how)
        workload.fill()
        for _ in range(steps):
            workload.step()


def wait_until_filled(dsn: str) -> None:
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(dsn, autocommit=True) as connection:
        while one(connection, "SELECT count(*) FROM users") == 0:
            assert time.monotonic() < deadline, "the workload wrote nothing"
            time.sleep(0.05)


def test_it_starts_with_rows_in_every_table(stage: str) -> None:
    play(stage, steps=0)
    with psycopg.connect(stage) as connection:
        counts = {table: one(connection, f"SELECT count(*) FROM {table}") for table in TABLES}
        assert min(counts.values()) > 0, counts
        assert sum(counts.values()) > 2000
        assert one(connection, "SELECT count(*) FROM attachments WHERE size_bytes IS NULL") == 0


def test_users_only_grow_while_messages_backups_and_keys_come_and_go(stage: str) -> None:
    users, pending, uploading, keys = [], [], [], []
    with psycopg.connect(stage, autocommit=True) as connection:
        workload = Workload(connection, Random(1))
        workload.fill()
        for _ in range(60):
            for _ in range(4):
                workload.step()
            users.append(one(connection, "SELECT count(*) FROM users"))
            pending.append(one(connection, "SELECT count(*) FROM messages WHERE expires_at > now()"))
            uploading.append(one(connection, "SELECT count(*) FROM backups WHERE state = 'UPLOADING'"))
            keys.append(one(connection, "SELECT count(*) FROM one_time_pre_keys"))
    assert users == sorted(users)
    assert users[-1] > users[0] + 50
    for moving in (pending, uploading, keys):
        changes = [later - earlier for earlier, later in pairwise(moving)]
        assert min(changes) < 0 < max(changes)
    assert max(pending) > 1.5 * min(pending)


def test_what_has_expired_is_cleaned_up(stage: str) -> None:
    with psycopg.connect(stage, autocommit=True) as connection:
        workload = Workload(connection, Random(1))
        workload.fill()
        for table in ("messages", "attachments", "refresh_tokens"):
            connection.execute(f"UPDATE {table} SET expires_at = now() - interval '1 s'".encode())
        connection.execute(
            "CREATE TABLE before AS SELECT id FROM attachments UNION ALL SELECT id FROM messages"
        )
        for _ in range(20):
            workload.step()
        assert one(connection, "SELECT count(*) FROM before") > 500
        for table in ("messages", "attachments"):
            assert one(connection, f"SELECT count(*) FROM before JOIN {table} USING (id)") == 0


def test_the_same_seed_writes_the_same_rows(database: Database) -> None:
    told = []
    for seed in (7, 7, 8):
        with tables(database.primary_dsn) as dsn:
            play(dsn, steps=60, seed=seed)
            with psycopg.connect(dsn) as connection:
                # Not the tables that the clock empties; their rows' ids come from the same source.
                told.append(
                    one(
                        connection,
                        "SELECT md5(string_agg(line, ',' ORDER BY line)) FROM ("
                        " SELECT id || username AS line FROM users"
                        " UNION ALL SELECT id || ' ' || user_id FROM devices"
                        " UNION ALL SELECT device_id || ' ' || id FROM one_time_pre_keys"
                        " UNION ALL SELECT device_id || token FROM push_tokens"
                        " UNION ALL SELECT device_id || state || current_version FROM backups"
                        " UNION ALL SELECT id || md5(content) FROM messages"
                        "   WHERE expires_at > now() + interval '1 day') AS lines",
                    )
                )
    assert told[0] == told[1] != told[2]


def test_no_table_grows_without_limit(stage: str) -> None:
    with psycopg.connect(stage, autocommit=True) as connection:
        workload = Workload(connection, Random(1), rate=8, most_users=1050)
        workload.fill()
        for _ in range(400):
            workload.step()
        users = one(connection, "SELECT count(*) FROM users")
        devices = one(connection, "SELECT count(*) FROM devices")
        assert users <= 1050
        assert users <= devices <= 2 * users
        fullest = "SELECT count(*) FROM one_time_pre_keys GROUP BY device_id ORDER BY 1 DESC LIMIT 1"
        assert one(connection, fullest) == FULL_STOCK
        for table in ("identity_keys", "signed_pre_keys", "push_tokens", "backups"):
            assert one(connection, f"SELECT count(*) FROM {table}") <= devices
        # Whatever has no cap of its own is either delivered by a later step or expires within minutes.
        lasting = one(
            connection, "SELECT count(*) FROM messages WHERE expires_at > now() + interval '1 hour'"
        )
        workload.rate = 0  # nothing new from here on
        for _ in range(101):
            workload.step()
        assert lasting > 0
        for table in ("messages", "attachments", "refresh_tokens"):
            late = f"SELECT count(*) FROM {table} WHERE expires_at > now() + interval '10 minutes'"
            assert one(connection, late) == 0


def test_it_rejects_tables_that_have_users(stage: str, capfd: pytest.CaptureFixture[str]) -> None:
    play(stage, steps=0)
    with psycopg.connect(stage, autocommit=True) as connection:
        before = one(connection, "SELECT count(*) FROM messages")
        assert run(stage, threading.Event()) is False
        assert one(connection, "SELECT count(*) FROM messages") == before
    assert capfd.readouterr().err == (
        "workload: stopped: the table users is not empty; use a database with empty tables\n"
    )


def test_an_event_stops_it(stage: str) -> None:
    stop = threading.Event()
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(run(stage, stop)))
    thread.start()
    try:
        wait_until_filled(stage)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert ended == [True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(stage: str, number: signal.Signals) -> None:
    with process(stage) as workload:
        wait_until_filled(stage)
        workload.send_signal(number)
        out, err = workload.communicate(timeout=PATIENCE)
    assert (workload.returncode, out, err) == (0, "", "")


def test_a_server_that_shuts_down_is_one_line_and_no_traceback(stage: str) -> None:
    with process(stage) as workload:
        wait_until_filled(stage)
        with psycopg.connect(stage, autocommit=True) as connection:
            # A shutdown ends each session in this way (57P01); here, other tests keep the server.
            ended = one(
                connection,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'poller demo workload' AND datname = current_database()",
            )
        out, err = workload.communicate(timeout=PATIENCE)
    assert ended == 1
    assert (workload.returncode, out) == (1, "")
    # The server's last message, unless the connection was closed before the client read it.
    last = "terminating connection due to administrator command|server closed the connection unexpectedly"
    assert re.fullmatch(rf"workload: stopped: [^\n]*({last})\n", err), err


def test_a_server_that_is_not_there_is_one_line() -> None:
    with process("host=127.0.0.1 port=1 dbname=none") as workload:
        out, err = workload.communicate(timeout=PATIENCE)
    assert (workload.returncode, out) == (1, "")
    assert err.startswith("workload: stopped: connection failed: ")
    assert err.count("\n") == 1


@contextmanager
def process(dsn: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "poller.demo.workload", dsn, "--rate", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()

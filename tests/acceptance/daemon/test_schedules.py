"""A daemon on a real standby makes up for a missed run of a schedule at its start, and for no other."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from poller.polling.state_file import Row, checksum_of
from tests.bed.polled import polling
from tests.bed.postgres import Database
from tests.bed.process import eventually

pytestmark = pytest.mark.postgres

CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS n"


def make_older(state: Path, query: str, hours: float) -> None:
    """Set the time of a stored value back."""
    with closing(sqlite3.connect(state / "values.db")) as db, db:
        columns = "target, query, source, definition, checksum, body"
        (stored,) = db.execute(f"SELECT {columns} FROM value WHERE query = ?", (query,))
        body = json.loads(stored[-1])
        body["at"] -= 3600 * hours
        row = Row(*stored)._replace(body=json.dumps(body).encode())
        db.execute(
            "UPDATE value SET checksum = ?, body = ? WHERE query = ?", (checksum_of(row), row.body, query)
        )


def test_only_a_missed_run_is_made_up_for_at_the_start(database: Database, tmp_path: Path) -> None:
    dsn, state = database.standby_dsn, tmp_path / "state"
    before = dict.fromkeys(("missed", "done", "usual"), CLOCK)
    with polling(tmp_path, dsn, [dsn], queries=before, POLLER_STATE_DIR=str(state)) as polled:
        assert eventually(lambda: all(polled.value(name) for name in before)), polled.process
    make_older(state, "missed", 25.0)
    stored = json.loads(_body(state, "done"))["samples"][0][1]

    ran = datetime.now(UTC) - timedelta(hours=12)
    nightly = {"interval": None, "schedule": f"{ran:%M %H} * * *", "max_age": None}
    with polling(
        tmp_path,
        dsn,
        [dsn],
        queries={**before, "new": CLOCK},
        fields=dict.fromkeys(("missed", "done", "new"), nightly),
        POLLER_STATE_DIR=str(state),
    ) as polled:
        assert eventually(lambda: ("missed", "ok") in polled.polls()), polled.process
        assert eventually(lambda: (polled.value("missed") or 0) > stored)
        assert eventually(lambda: polled.polls().get(("usual", "ok"), 0) >= 3)
        state_of = {"poller__query__name": "new", "poller__state": "skipped"}
        assert polled.value("poller.query.state", **state_of, poller__reason="schedule") == 1
        assert polled.value("new") is None
        assert polled.value("done") == stored
        assert [key for key in polled.polls() if key[0] in ("done", "new")] == []
        assert polled.polls()["missed", "ok"] == 1
        heartbeat = json.loads(polled.process.health_file.read_text())
        assert heartbeat["ready"] is True
        next_runs = {status["query"]: status["next_run"] for status in heartbeat["glances"]}
        due = (ran + timedelta(days=1)).replace(second=0, microsecond=0).timestamp()
        assert next_runs["missed"] == next_runs["done"] == next_runs["new"] == due


def _body(state: Path, query: str) -> bytes:
    with closing(sqlite3.connect(state / "values.db")) as db:
        ((body,),) = db.execute("SELECT body FROM value WHERE query = ?", (query,))
        return bytes(body)

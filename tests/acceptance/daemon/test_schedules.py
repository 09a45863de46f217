"""Scheduled queries on a real standby: missed runs, reloads, and the commands that run them at once."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bed.polled import polling, write
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.stored import make_older

CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS n"


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


def test_a_reload_neither_runs_a_new_nor_a_changed_scheduled_query(
    database: Database, tmp_path: Path
) -> None:
    nightly = {"interval": None, "schedule": _hours_ago(12), "max_age": None}
    with polling(
        tmp_path,
        database.standby_dsn,
        [],
        queries={"usual": CLOCK, "changed": CLOCK},
        fields={"changed": nightly},
    ) as polled:
        assert eventually(lambda: polled.value("usual")), polled.process
        queries = {"usual": CLOCK, "changed": "SELECT 7 AS n", "added": CLOCK}
        write(tmp_path, queries, changed=nightly, added=nightly)
        polled.process.send(signal.SIGHUP)
        polled.process.wait_for_line("query files read again")
        count = polled.polls()["usual", "ok"]
        assert eventually(lambda: polled.polls()["usual", "ok"] >= count + 2)
        assert {key[0] for key in polled.polls()} == {"usual"}


def test_commands_run_a_scheduled_query_at_once(
    database: Database, tmp_path: Path, poller_process: Callable[..., Process]
) -> None:
    nightly = {"interval": None, "schedule": _hours_ago(12), "max_age": None}
    file = write(tmp_path, {"nightly": "SELECT 7 AS n"}, nightly=nightly)
    env = {"POLLER_DATABASE_URL": database.standby_dsn, "POLLER_QUERIES": file}
    for arguments in (["poll"], ["doctor"], ["check", "--database"]):
        process = poller_process(*arguments, env=env)
        process.wait()
        assert "nightly" in process.stdout, process
        assert "Traceback" not in process.stderr
        assert not re.search("nightly.*(skipped|not run|failed)", process.stdout), process
        if arguments == ["poll"]:
            assert re.search(r"nightly +nightly +- +7", process.stdout), process


def _hours_ago(hours: float) -> str:
    return f"{datetime.now(UTC) - timedelta(hours=hours):%M %H} * * *"


def _body(state: Path, query: str) -> bytes:
    with closing(sqlite3.connect(state / "values.db")) as db:
        ((body,),) = db.execute("SELECT body FROM value WHERE query = ?", (query,))
        return bytes(body)

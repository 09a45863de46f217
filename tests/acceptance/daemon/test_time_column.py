"""Data points carry the time of their rows, each exactly once, also after a restart."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.receiver.receiver import Receiver
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually

Start = Callable[..., Process]
FILE = """
queries:
  - name: sent
    sql: >-
      SELECT date_trunc('hour', at, 'UTC') + interval '1 hour' AS hour, state, count(*) AS n
      FROM sent GROUP BY hour, state
    interval: 1s
    timeout: 1s
    max_age: 1h
    metrics:
      - name: sent
        description: Messages sent in an hour.
        unit: "{message}"
        value_column: n
        attribute_columns: [state]
        time_column: hour
        settle: 10m
  - name: things
    sql: SELECT 1 AS n
    interval: 1s
    timeout: 1s
    metrics: [{name: things, description: Things., unit: "1", value_column: n}]
"""
ROWS = """
CREATE TABLE sent (at timestamptz, state text);
INSERT INTO sent
    SELECT date_trunc('hour', now() - interval '10 min', 'UTC') - hours * interval '1 hour', state
    FROM unnest(ARRAY[3, 3, 2, -5]) AS hours, unnest(ARRAY['ok', 'failed']) AS state;
"""


@pytest.fixture
def environment(database: Database, receiver: Receiver, tmp_path: Path) -> dict[str, str]:
    database.execute(ROWS)
    database.replayed()
    (tmp_path / "q.yaml").write_text(FILE)
    return {
        "POLLER_DATABASE_URL": database.standby_dsn,
        "POLLER_QUERIES": str(tmp_path / "q.yaml"),
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_EXPORT_INTERVAL": "500ms",
        "POLLER_STATE_DIR": str(tmp_path / "state"),
        "POLLER_TRACES": "false",
        "PGTZ": "Asia/Kathmandu",
    }


def exported(receiver: Receiver) -> list[tuple[str, int, object]]:
    """Return state, time in nanoseconds and value of every received data point of the metric."""
    points = [
        (str(point.attributes["state"]), point.time_unix_nano, point.value)
        for request in receiver.requests()
        for point in request.points()
        if point.metric == "sent"
    ]
    return sorted(points, key=str)


def count(receiver: Receiver) -> int:
    return sum(point.metric == "things" for request in receiver.requests() for point in request.points())


def wait_for_exports(receiver: Receiver) -> None:
    before = count(receiver)
    assert eventually(lambda: count(receiver) >= before + 5)


def newest_hour(database: Database) -> int:
    """Return the end of the hour of the newest row in the past, in nanoseconds since 1970."""
    ((end,),) = database.execute("SELECT extract(epoch FROM max(at))::bigint FROM sent WHERE at < now()")
    return (int(end) + 3600) * 10**9


def test_each_data_point_has_the_time_of_its_row_and_arrives_once(
    database: Database, receiver: Receiver, poller_process: Start, environment: dict[str, str]
) -> None:
    first = newest_hour(database)
    daemon = poller_process("run", env=environment)
    expected = [("failed", first, 1), ("ok", first, 1)]
    assert eventually(lambda: exported(receiver) == expected), exported(receiver)
    wait_for_exports(receiver)
    assert exported(receiver) == expected

    database.execute("INSERT INTO sent SELECT max(at) + interval '1 hour', 'ok' FROM sent WHERE at < now()")
    expected = [*expected, ("ok", first + 3600 * 10**9, 1)]
    assert eventually(lambda: exported(receiver) == expected), exported(receiver)

    database.execute("INSERT INTO sent SELECT min(at), 'ok' FROM sent")
    daemon.wait_for_line("WARNING .*query sent: rows omitted.*late")
    wait_for_exports(receiver)
    assert exported(receiver) == expected

    for number in (signal.SIGTERM, signal.SIGKILL):
        daemon.send(number)
        daemon.wait()
        daemon = poller_process("run", env=environment)
        wait_for_exports(receiver)
        assert exported(receiver) == expected


def test_poll_shows_the_time_and_exports_the_newest_data_point_again(
    receiver: Receiver, poller_process: Start, environment: dict[str, str]
) -> None:
    command = ("poll", "--query", "sent", "--format", "json")
    for _ in range(2):  # without a daemon, the newest point is exported again: equal time and value
        process = poller_process(*command, "--push", env=environment)
        assert process.wait() == 0, str(process)
        (query,) = json.loads(process.stdout)["queries"]
    assert {sample["attributes"]["state"] for sample in query["samples"]} == {"failed", "ok"}
    assert len({sample["time"] for sample in query["samples"]}) == 1
    assert query["samples"][0]["time"].endswith(":00:00.000Z")
    assert query["quarantined"] == {"future": 2}
    assert len(exported(receiver)) == 4
    assert len(set(exported(receiver))) == 2
    table = poller_process("poll", "--query", "sent", env=environment)
    assert table.wait() == 0
    assert " TIME " in table.stdout.splitlines()[0]


def test_check_rejects_a_time_that_depends_on_the_session(
    poller_process: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    text = FILE.replace("+ interval '1 hour' AS hour", "AT TIME ZONE 'UTC' AS hour")
    (tmp_path / "q.yaml").write_text(text)
    process = poller_process(
        "check", "--database", "--format", "json", str(tmp_path / "q.yaml"), env=environment
    )
    assert process.wait() == 1, str(process)
    (error,) = [item for item in json.loads(process.stdout)["problems"] if item["level"] == "error"]
    assert (error["rule"], error["path"]) == ("not-a-time", "queries[0].metrics[0].time_column")
    assert error["message"].endswith("write hour AT TIME ZONE 'UTC'")

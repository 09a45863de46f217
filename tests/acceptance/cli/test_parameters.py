"""A query with parameters works in every command, and in the daemon with its reload."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.receiver.receiver import Receiver
from tests.bed.postgres import Database
from tests.bed.process import Process

Start = Callable[..., Process]

QUERIES = """\
queries:
  - name: orders
    sql: |
      SELECT count(*) AS orders
      FROM orders
      WHERE state = :state AND items >= :least::int
    parameters:
      state: [queued, "it's"]
      least: [1, 10]
    metrics:
      - {name: orders_by_state, description: Orders., unit: "{order}", value_column: orders}
"""
CASES = """\
schema: CREATE TABLE orders (state text, items int);
cases:
  - name: each combination
    query: orders
    rows:
      orders: "state,items\\nqueued,1\\nqueued,10\\nit's,3\\n"
    expect:
      - {metric: orders_by_state, attributes: {state: queued, least: 1}, value: 2}
      - {metric: orders_by_state, attributes: {state: queued, least: 10}, value: 1}
      - {metric: orders_by_state, attributes: {state: "it's", least: 1}, value: 1}
      - {metric: orders_by_state, attributes: {state: "it's", least: 10}, value: 0}
"""


@pytest.fixture
def folder(database: Database, tmp_path: Path) -> Path:
    database.execute(
        "CREATE TABLE orders (state text, items int); "
        "INSERT INTO orders VALUES ('queued', 1), ('queued', 10), ('it''s', 3); ANALYZE orders"
    )
    database.replayed()
    (tmp_path / "orders.yaml").write_text(QUERIES, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(database: Database, folder: Path, poller_process: Start) -> Callable[..., str]:
    """Run a command that must succeed, on the standby; return its stdout."""

    def start(*arguments: str, code: int = 0) -> str:
        process = poller_process(
            *arguments, cwd=folder, env={"POLLER_DATABASE_URL": database.standby_dsn, "POLLER_QUERIES": "."}
        )
        assert process.wait() == code, process
        return process.stdout

    return start


def test_poll_prints_a_series_for_each_combination(run: Callable[..., str]) -> None:
    (query,) = json.loads(run("poll", "--format", "json"))["queries"]
    assert [(sample["attributes"], sample["value"]) for sample in query["samples"]] == [
        ({"state": "queued", "least": 1}, 2),
        ({"state": "queued", "least": 10}, 1),
        ({"state": "it's", "least": 1}, 1),
        ({"state": "it's", "least": 10}, 0),
    ]


def test_check_doctor_grants_catalog_alerts_and_dashboard_accept_it(run: Callable[..., str]) -> None:
    checked = json.loads(run("check", "--database", "--format", "json"))
    assert checked["problems"] == []
    assert checked["queries"][0]["cost"] > 0
    (examined,) = [
        check
        for check in json.loads(run("doctor", "--format", "json"))["checks"]
        if check["check"] == "query"
    ]
    assert (examined["state"], examined["facts"]["series"]) == ("ok", 4)
    assert examined["facts"]["cost"] > 0
    assert "GRANT SELECT (items, state) ON public.orders" in run("grants")
    (metric,) = json.loads(run("catalog", "--format", "json"))["metrics"][:1]
    assert {attribute["name"] for attribute in metric["attributes"]} == {"state", "least"}
    assert "least" in run("dashboard")


def test_check_reports_a_mistake_at_its_place_in_the_file(run: Callable[..., str], folder: Path) -> None:
    (folder / "orders.yaml").write_text(QUERIES.replace("items >=", "item >="), encoding="utf-8")
    (problem,) = json.loads(run("check", "--database", "--format", "json", code=1))["problems"]
    assert (problem["line"], problem["column"]) == (6, 32)
    assert 'column "item" does not exist' in problem["message"]


def test_cases_are_tested_with_each_combination(run: Callable[..., str], folder: Path) -> None:
    (folder / "orders.test.yaml").write_text(CASES, encoding="utf-8")
    assert "1 case: 1 ok" in run("test", ".")


@pytest.mark.postgres
def test_try_says_where_parameters_are_declared(poller_process: Start) -> None:
    process = poller_process("try", "SELECT count(*) AS n FROM orders WHERE state = :state")
    assert process.wait() == 2
    assert "add `state: [...]` to parameters, or write the value" in process.stderr


def test_the_daemon_exports_each_combination_and_loads_other_values(
    database: Database, folder: Path, receiver: Receiver, poller_process: Start
) -> None:
    daemon = poller_process("run", env={
        "POLLER_DATABASE_URL": database.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_INTERVAL": "1s", "POLLER_EXPORT_INTERVAL": "300ms", "POLLER_QUERIES": str(folder),
    })  # fmt: skip

    def series() -> set[tuple[object, ...]]:
        return {
            (point.attributes["state"], point.attributes["least"], point.value)
            for point in receiver.points()
            if point.metric == "orders_by_state"
        }

    receiver.wait_for(lambda _: len(series()) >= 4)
    assert series() == {("queued", 1, 2), ("queued", 10, 1), ("it's", 1, 1), ("it's", 10, 0)}
    (folder / "orders.yaml").write_text(QUERIES.replace("[1, 10]", "[2]"), encoding="utf-8")
    daemon.send(signal.SIGHUP)
    daemon.wait_for_line(r"changed: orders \(parameters\); its old values are dropped")
    receiver.wait_for(lambda _: ("queued", 2, 1) in series())

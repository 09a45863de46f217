"""A changed plan is counted each time, and logged once with the nodes that differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from poller.model.result import MAX_NODES, PlanShape
from poller.model.rows import Rows
from poller.postgres.plan import read_plan
from poller.telemetry.plan_changes import PlanChanges
from poller.telemetry.poll_log import DELAYS_LOGGED_EVERY
from tests.bed.definitions import a_query, a_result

SCAN: dict[str, Any] = {"Node Type": "Seq Scan", "Relation Name": "messages", "Plan Rows": 5}
BY_INDEX: dict[str, Any] = {
    "Node Type": "Index Scan",
    "Relation Name": "messages",
    "Index Name": "messages_pkey",
}
QUERY = a_query("q")


def shape(top: dict[str, Any], cost: float = 1.0) -> PlanShape:
    text = json.dumps([{"Plan": {"Total Cost": cost, **top}}]).encode()
    return read_plan(Rows((), [(text,)])).shape


def aggregate(*inner: dict[str, Any]) -> dict[str, Any]:
    return {"Node Type": "Aggregate", "Plans": list(inner)}


class Watched:
    """The changes of one target, and the names that were counted."""

    def __init__(self) -> None:
        self.counted: list[str] = []
        self.changes = PlanChanges(self.counted.append)

    def see(self, plan: PlanShape | None, now: float = 0.0) -> None:
        self.changes.observe([a_result(QUERY, plan=plan)], now)


def test_a_change_is_counted_and_logged_with_the_nodes_that_differ(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    watched = Watched()
    for plan in (aggregate(BY_INDEX), aggregate(BY_INDEX), None, aggregate(SCAN), aggregate(SCAN)):
        watched.see(None if plan is None else shape(plan))
    assert watched.counted == ["q"]
    assert caplog.messages == [
        "query q has another plan: Seq Scan on messages instead of Index Scan using messages_pkey on messages"
    ]


def test_costs_do_not_change_a_plan_but_the_order_of_its_nodes_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    watched = Watched()
    for plan in (
        shape(aggregate(SCAN, BY_INDEX)),
        shape(aggregate({**SCAN, "Plan Rows": 7}, BY_INDEX), 99.0),
        shape(aggregate(BY_INDEX, SCAN)),
    ):
        watched.see(plan)
    assert caplog.messages == ["query q has another plan: the same nodes in another order"]


def test_an_alternating_plan_is_always_counted_and_rarely_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    watched = Watched()
    for second in range(10):
        watched.see(shape(SCAN if second % 2 else BY_INDEX), float(second))
    watched.see(shape(BY_INDEX), DELAYS_LOGGED_EVERY + 1.0)
    assert len(watched.counted) == 10
    assert len(caplog.messages) == 2


def test_a_query_that_was_removed_or_changed_is_forgotten() -> None:
    watched = Watched()
    watched.see(shape(SCAN))
    watched.changes.reset(["q", "unknown"])
    watched.see(shape(BY_INDEX))
    assert watched.counted == []


def test_a_large_plan_is_compared_as_a_whole_and_kept_in_part() -> None:
    names = [{**SCAN, "Relation Name": f"events_{number}" * 50} for number in range(500)]
    plan, other = shape(aggregate(*names)), shape(aggregate(*names[:-1], BY_INDEX))
    assert plan.digest != other.digest
    assert plan.nodes == other.nodes
    assert len(plan.nodes) == MAX_NODES
    assert max(map(len, plan.nodes)) <= 200

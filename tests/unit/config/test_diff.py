"""Two catalogues are compared query by query, and values that are still valid are retained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from poller.config.queries.diff import MOST_NAMES, Change, compare
from poller.model.query import Estimate, MetricDefinition, Requirements
from tests.bed.definitions import a_metric, a_query

A = a_query("a")


def changed(**fields: Any) -> Change:
    """Return the query `a` and the same query with other fields."""
    return Change(A, replace(A, **fields))


def test_a_changed_schedule_is_named_with_both_values() -> None:
    age: dict[str, Any] = {"max_age": 200_000.0}
    nightly, later = (a_query("a", schedule=text, **age) for text in ("15 3 * * *", "@daily"))
    zone = a_query("a", schedule="15 3 * * *", timezone="Europe/Berlin", **age)
    changes = [
        compare([before], [after]).changed
        for before, after in ((a_query("a", **age), nightly), (nightly, later), (later, zone))
    ]
    assert [str(change) for (change,) in changes] == [
        "schedule none -> 15 3 * * * UTC",
        "schedule 15 3 * * * UTC -> 0 0 * * * UTC",
        "schedule 0 0 * * * UTC -> 15 3 * * * Europe/Berlin",
    ]


def metric(**fields: Any) -> tuple[MetricDefinition, ...]:
    return (a_metric(**{"name": "a", **fields}),)


def test_equal_catalogues_have_no_difference() -> None:
    same = compare([A, a_query("b")], [a_query("b"), a_query("a")])
    assert not same
    assert (set(same.dropped), set(same.fresh), same.unchanged) == (set(), set(), 2)


def test_an_added_query_is_polled_immediately_and_the_values_of_a_removed_query_are_dropped() -> None:
    difference = compare([A, a_query("old")], [A, a_query("new")])
    assert difference
    assert (set(difference.fresh), set(difference.dropped)) == ({"new"}, {"old"})
    assert list(difference.lines()) == [
        "1 added, 1 removed, 0 changed, 1 unchanged",
        "added: new",
        "removed: old",
        "new metrics: new",
        "removed metrics: old",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"interval": 60.0},
        {"schedule": "15 3 * * *"},
        {"timeout": 5.0},
        {"max_age": 4000.0},
        {"group": "other"},
        {"snapshot": False},
        {"max_cost": 5.0},
        {"requires": Requirements(role="standby")},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_change_of_schedule_or_condition_keeps_the_values(fields: dict[str, Any]) -> None:
    change = changed(**fields)
    assert not change.changes_numbers
    difference = compare([change.before], [change.after])
    assert (set(difference.dropped), set(difference.fresh)) == (set(), {"a"})


@pytest.mark.parametrize(
    "fields",
    [
        {"sql": "SELECT 2 AS n"},
        {"max_series": 5},
        {"parameters": ({"state": "queued"},)},
        {"settings": {"search_path": "tenant_a"}},
        {"estimate": Estimate(sql="SELECT 1 AS n", above_cost=1)},
        {"metrics": metric(unit="{other}")},
        {"metrics": metric(name="b")},
        {"metrics": metric(value_column="m")},
        {"metrics": metric(on_null="zero")},
        {"metrics": metric(attributes={"env": "prod"})},
        {"metrics": metric(attribute_columns=["x"])},
        {"metrics": (*metric(), a_metric("second"))},
    ],
    ids=str,
)
def test_a_change_of_meaning_drops_the_values_and_polls_immediately(fields: dict[str, Any]) -> None:
    change = changed(**fields)
    assert change.changes_numbers
    difference = compare([change.before], [change.after])
    assert (set(difference.dropped), set(difference.fresh)) == ({"a"}, {"a"})


def test_another_description_keeps_the_values_and_polls_nothing() -> None:
    change = changed(metrics=metric(description="Others."))
    difference = compare([change.before], [change.after])
    assert (set(difference.dropped), set(difference.fresh)) == (set(), set())
    assert list(difference.lines()) == [
        "0 added, 0 removed, 1 changed, 0 unchanged",
        "changed: a (metrics); its values remain",
        "metrics with a new description: a",
    ]


def test_another_alert_keeps_the_values_and_polls_nothing() -> None:
    change = changed(metrics=metric(alert=[{"above": 5}]))
    difference = compare([change.before], [change.after])
    assert (set(difference.dropped), set(difference.fresh)) == (set(), set())
    assert difference, "it is a change nevertheless"


def test_another_owner_keeps_the_values_and_polls_nothing() -> None:
    change = changed(owner="messaging-team")
    difference = compare([change.before], [change.after])
    assert (set(difference.dropped), set(difference.fresh)) == (set(), set())
    assert "changed: a (owner); its values remain" in difference.lines()


def test_an_attribute_of_1_differs_from_an_attribute_of_true() -> None:
    number = changed(metrics=metric(attributes={"x": 1})).after
    boolean = changed(metrics=metric(attributes={"x": True})).after
    assert number == boolean, "they are equal in Python"
    assert compare([number], [boolean]).dropped == {"a"}


def test_the_lines_contain_keys_durations_and_units() -> None:
    change = changed(sql="SELECT 2 AS n", interval=60.0, metrics=metric(unit="s"))
    assert list(compare([change.before], [change.after]).lines()) == [
        "0 added, 0 removed, 1 changed, 0 unchanged",
        "changed: a (sql, interval 5m -> 1m, metrics); its old values are dropped",
        "metrics with a new unit: a {thing} -> s",
    ]


def test_a_change_of_the_type_drops_the_values() -> None:
    change = changed(metrics=metric(type="counter"))
    assert list(compare([change.before], [change.after]).lines()) == [
        "0 added, 0 removed, 1 changed, 0 unchanged",
        "changed: a (metrics); its old values are dropped",
        "metrics with a new type: a gauge -> counter",
    ]


def test_a_metric_that_another_query_feeds_is_not_removed() -> None:
    both = [a_query(name, metrics=(a_metric("shared", attributes={"q": name}),)) for name in "ab"]
    assert not compare(both, both[:1]).metrics
    assert not compare(both[:1], both).metrics


@pytest.mark.slow
def test_a_thousand_changes_are_a_few_lines() -> None:
    before = [a_query(f"q{n}") for n in range(1000)]
    after = [replace(query, sql="SELECT 2 AS n") for query in before[:500]]
    after += [a_query(f"r{n}") for n in range(500)]
    lines = list(compare(before, after).lines())
    assert len(lines) < MOST_NAMES + 10
    assert max(map(len, lines)) < 300
    assert f"changed: {500 - MOST_NAMES} more" in lines
    assert any(line.startswith("added: r0, r1,") and line.endswith("and 480 more") for line in lines)

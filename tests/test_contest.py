"""A series that two queries claim is told by neither, and counted."""

from __future__ import annotations

from poller.contest import contested, without
from poller.points import Points
from poller.result import PollResult, Sample
from tests.bed.definitions import a_metric, a_query, a_result

SHARED, OWN = a_metric("shared"), a_metric("own")
A = a_query("a", metrics=(SHARED, OWN))
B = a_query("b", metrics=(SHARED,))


def of_a(*values: tuple[int, str]) -> PollResult:
    return a_result(A, Sample("own", 7, {}), *(Sample("shared", value, {"k": k}) for value, k in values))


def of_b(*values: tuple[int, str]) -> PollResult:
    return a_result(B, *(Sample("shared", value, {"k": k}) for value, k in values))


def test_queries_that_share_a_metric_and_no_series_lose_nothing() -> None:
    results = of_a((1, "x")), of_b((2, "y"))
    assert contested(results) == {}
    assert [without(result, {}) for result in results] == list(results)


def test_a_series_of_two_queries_is_told_by_neither_and_the_others_by_both() -> None:
    results = of_a((1, "x"), (2, "z")), of_b((1, "x"), (3, "y"))
    claims = contested(results)
    a, b = (without(result, claims) for result in results)
    assert [(s.metric, s.value) for s in a.samples] == [("own", 7), ("shared", 2)]
    assert [(s.metric, s.value) for s in b.samples] == [("shared", 3)]
    assert a.quarantined == b.quarantined == {"duplicate": 1}
    assert a.advice == "another query has the same series; tell them apart by fixed attributes"
    told = {
        metric.name: [point.as_int for point in metric.gauge.data_points]
        for metric in Points().metrics(results)
    }
    assert told == {"own": [7], "shared": [2, 3]}


def test_it_is_no_contest_where_the_other_has_no_value_now() -> None:
    assert contested([of_a((1, "x")), of_b()]) == {}

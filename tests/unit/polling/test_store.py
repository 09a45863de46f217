"""The store returns the last good result of each query until it is too old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from poller.model.errors import ErrorKind, PollError
from poller.model.result import GoodResult, PollResult, Sample, Skip, SkipReason
from poller.polling.store import ResultStore
from tests.bed.definitions import a_query, a_result

FAILURE = PollError("rejected", "no")
A = a_query("a", interval=60, max_age=100, timeout=1)
B = a_query("b", interval=60, max_age=500, timeout=1)


def sample(value: int, metric: str = "things", **attributes: str) -> Sample:
    return Sample(metric, value, attributes)


def values_at(store: ResultStore, now: float, metric: str = "things") -> list[int | float]:
    return [
        sample.value for result in store.current(now) for sample in result.samples if sample.metric == metric
    ]


def test_there_are_no_values_before_the_first_result() -> None:
    store = ResultStore([A])
    assert values_at(store, 0) == []
    (freshness,) = store.freshness(0)
    assert (freshness.query, freshness.last_success, freshness.age) == (A, None, None)
    assert (freshness.stale, freshness.series) == (True, 0)


def test_a_good_result_replaces_the_previous_result_completely() -> None:
    store = ResultStore([A])
    store.put([a_result(A, sample(1, kind="x"), sample(2, kind="y"))], 0)
    store.put([a_result(A, sample(3, kind="y"))], 1)
    assert values_at(store, 1) == [3]


def test_a_good_result_without_rows_ends_the_series() -> None:
    store = ResultStore([A])
    store.put([a_result(A, sample(1))], 0)
    store.put([a_result(A)], 1)
    assert values_at(store, 1) == []
    (freshness,) = store.freshness(1)
    assert (freshness.stale, freshness.series) == (False, 0)


def test_a_failed_or_skipped_poll_changes_nothing() -> None:
    store = ResultStore([A])
    store.put([a_result(A, sample(1), at=1000.0)], 0)
    store.put([a_result(A, at=1060.0, outcome="failed", error=FAILURE)], 60)
    store.put([a_result(A, at=1070.0, outcome="skipped", skipped=Skip("column", "no such column"))], 70)
    assert values_at(store, 80) == [1]
    (freshness,) = store.freshness(80)
    assert (freshness.last_success, freshness.age) == (1000.0, 80)


def a_skip(reason: SkipReason) -> PollResult:
    return a_result(A, outcome="skipped", skipped=Skip(reason, "not now"))


def a_failure(kind: ErrorKind) -> PollResult:
    return a_result(A, outcome="failed", error=PollError(kind, "no"))


@pytest.mark.parametrize(
    ("polls", "states"),
    [
        (  # with an open circuit breaker: tried, postponed, tried
            [a_failure("timeout"), a_skip("breaker"), a_failure("timeout"), a_skip("breaker"), a_result(A)],
            ["failed(timeout)"] * 4 + ["ok"],
        ),
        ([a_failure("timeout"), a_skip("busy"), a_skip("budget")], ["failed(timeout)"] * 3),
        ([a_failure("timeout"), a_result(A, estimated="breaker")], ["failed(timeout)"] * 2),
        (
            [a_result(A, estimated="timeout"), a_result(A, estimated="breaker"), a_result(A)],
            ["estimated(timeout)", "estimated(timeout)", "ok"],
        ),
        (  # problems of the server, or of the requirements, replace the state
            [a_failure("rejected"), a_skip("lag"), a_skip("breaker"), a_skip("relation")],
            ["failed(rejected)", "skipped(lag)", "failed(rejected)", "skipped(relation)"],
        ),
        (  # an unavailable server says nothing about the query
            [a_failure("rejected"), a_failure("unavailable"), a_skip("breaker")],
            ["failed(rejected)", "failed(unavailable)", "failed(rejected)"],
        ),
        ([a_result(A), a_skip("duty_cycle"), a_result(A)], ["ok", "skipped(duty_cycle)", "ok"]),
        ([a_failure("unavailable"), a_skip("busy")], ["failed(unavailable)", "skipped(busy)"]),
    ],
)
def test_a_query_that_fails_stays_failed_until_it_succeeds(
    polls: Sequence[PollResult], states: Sequence[str]
) -> None:
    store = ResultStore([A])
    observed = []
    for now, result in enumerate(polls):
        store.put([result], float(now))
        (freshness,) = store.freshness(float(now))
        observed.append(str(freshness.state))
    assert observed == states


def test_a_query_with_another_statement_has_not_failed() -> None:
    store = ResultStore([A])
    store.put([a_failure("timeout")], 0.0)
    store.swap([A], {A.name})
    store.put([a_skip("busy")], 1.0)
    assert [str(item.state) for item in store.freshness(1.0)] == ["skipped(busy)"]


def test_a_value_is_returned_until_max_age_and_not_longer() -> None:
    store = ResultStore([A])
    store.put([a_result(A, sample(1))], 10)
    assert values_at(store, 110) == [1]
    assert values_at(store, 110.001) == []
    (before,), (after,) = store.freshness(110), store.freshness(110.001)
    assert (before.stale, before.series) == (False, 1)
    assert (after.stale, after.series, after.last_success) == (True, 0, 1000.0)


def test_a_stale_query_recovers_with_its_next_good_result() -> None:
    store = ResultStore([A])
    store.put([a_result(A, sample(1))], 0)
    assert values_at(store, 1000) == []
    store.put([a_result(A, sample(2))], 1000)
    assert values_at(store, 1001) == [2]


def test_two_queries_feed_the_same_metric_and_age_separately() -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1)), a_result(B, sample(2), sample(9, metric="others"))], 0)
    assert values_at(store, 50) == [1, 2]
    assert values_at(store, 200) == [2]
    assert values_at(store, 50, "others") == [9]
    assert [freshness.series for freshness in store.freshness(50)] == [1, 2]


def test_a_read_in_progress_is_of_a_single_tick_while_the_next_is_stored() -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1)), a_result(B, sample(1))], 0)
    reading = store.current(1)
    store.put([a_result(A, sample(2)), a_result(B, sample(2))], 1)
    assert [result.samples[0].value for result in reading] == [1, 1]
    assert values_at(store, 1) == [2, 2]


def test_a_swap_keeps_the_values_of_remaining_queries_with_the_new_definition() -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1)), a_result(B, sample(2))], 0)
    longer = a_query("a", interval=60, max_age=1000, timeout=1)
    added = a_query("c", interval=60, max_age=100, timeout=1)
    store.swap([added, longer], dropped={"b"})
    assert values_at(store, 500) == [1]
    assert [result.query for result in store.current(500)] == [longer]
    assert [(item.query, item.last_success) for item in store.freshness(0)] == [
        (added, None),
        (longer, 1000.0),
    ]


def test_a_swap_permanently_drops_values_of_removed_and_changed_queries() -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1)), a_result(B, sample(2))], 0)
    store.swap([A], dropped={"a"})
    assert values_at(store, 1) == []
    store.swap([A, B], dropped=())
    assert values_at(store, 1) == [], "a query that returns starts without values"
    store.put([a_result(A, sample(3))], 2)
    assert values_at(store, 2) == [3]


def test_a_read_in_progress_is_of_a_single_catalogue_during_a_swap() -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1)), a_result(B, sample(2))], 0)
    reading = store.current(1)
    store.swap([A], dropped={"b"})
    assert [result.samples[0].value for result in reading] == [1, 2]
    assert values_at(store, 1) == [1]


def test_the_first_answer_of_another_database_ends_all_values_of_the_previous_one() -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1), database="x"), a_result(B, sample(2), database="x")], 0)
    store.put([a_result(A, sample(3), database="y")], 1)
    assert values_at(store, 1) == [3]
    (_, b) = store.freshness(1)
    assert (b.last_success, b.stale, str(b.state)) == (None, True, "stale"), "it was not polled there yet"
    store.put([a_result(B, sample(4), database="y")], 2)
    assert values_at(store, 2) == [3, 4]


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "failed", "error": FAILURE},
        {"outcome": "skipped", "skipped": Skip("relation", "no such table")},
    ],
    ids=["failed", "skipped"],
)
def test_an_answer_without_values_also_ends_those_of_another_database(answer: dict[str, Any]) -> None:
    store = ResultStore([A, B])
    store.put([a_result(A, sample(1), database="x"), a_result(B, sample(2), database="x")], 0)
    store.put([a_result(A, database="x", **answer)], 1)
    assert values_at(store, 1) == [1, 2]
    store.put([a_result(A, database="y", **answer)], 2)
    assert values_at(store, 2) == []


def test_neither_another_server_nor_an_unknown_database_ends_a_value() -> None:
    restored = [GoodResult(a_result(B, sample(2)), 0.0)]  # stored by a version that did not store the name
    store = ResultStore([A, B], restored)
    store.put([a_result(A, sample(1), database="x", server="old:5432")], 1)
    assert values_at(store, 1) == [1, 2]
    unreachable = PollError("unavailable", "no")
    store.put([a_result(A, outcome="failed", error=unreachable)], 2)
    store.put([a_result(A, sample(3), database="x", server="new:5432")], 3)
    assert values_at(store, 3) == [3, 2]
    store.put([a_result(A, sample(4), database="y", server="new:5432")], 4)
    assert values_at(store, 4) == [4]


def test_answers_of_the_previous_database_in_the_same_tick_are_ignored() -> None:
    store = ResultStore([A, B])
    late, early = (
        a_result(A, sample(1), database="y", answered=2.0),
        a_result(B, sample(2), database="x", answered=1.0),
    )
    assert [result.query for result in store.put([late, early], 2)] == [A]
    assert values_at(store, 2) == [1]


def test_only_values_of_the_database_that_answered_last_are_restored() -> None:
    """Values of two databases are stored if those of the previous one could not be deleted."""
    newer, older = a_result(A, sample(1), database="y"), a_result(B, sample(2), database="x")
    restored = [GoodResult(newer, 9.0), GoodResult(older, 8.0)]
    assert values_at(ResultStore([A, B], restored), 10) == [1]
    assert values_at(ResultStore([A, B], reversed(restored)), 10) == [1]

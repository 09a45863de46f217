"""A series that two queries claim is told by neither, and counted."""

from __future__ import annotations

import random

from opentelemetry.sdk.resources import Resource

from poller.model.errors import PollError
from poller.model.result import PollResult, Sample
from poller.polling.duplicates import contested, without
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.store import ResultStore
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
    instruments = CatalogInstruments(lambda: Frame((SHARED, OWN), results), Resource({}), "1.2.3")
    exported = {
        metric.name: [point.value for point in metric.data.data_points]  # type: ignore[union-attr]
        for metric in instruments.collect()
    }
    assert exported == {"own": [7], "shared": [2, 3]}


def test_it_is_no_contest_where_the_other_has_no_value_now() -> None:
    assert contested([of_a((1, "x")), of_b()]) == {}


def test_what_is_kept_up_to_date_with_each_tick_is_what_a_look_at_everything_finds() -> None:
    chance = random.Random(1)
    queries = [
        a_query(f"q{number}", metrics=(SHARED, OWN) if number < 2 else (SHARED,), interval=10, max_age=30)
        for number in range(4)
    ]
    store, found = ResultStore(queries), 0
    for now in range(300):
        query = chance.choice(queries)
        result = a_result(
            query,
            *(Sample("shared", 1, {"k": k}) for k in "xyz" if chance.random() < 0.4),
            *(Sample("own", 1, {"k": query.name}) for _ in query.metrics[1:]),
        )
        if chance.random() < 0.2:
            result = result._replace(outcome="failed", samples=(), error=PollError("timeout", "x"))
        store.put([result], now)
        if chance.random() < 0.05:
            chance.shuffle(queries)
            store.swap(queries, {queries[0].name})
            continue
        expected = without(result, contested(store.current(now)))
        assert without(result, store.contested([result], now)) == expected
        found += expected != result
    assert found > 20

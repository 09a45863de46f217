"""A series that two queries report is not exported, but counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from poller.model.errors import PollError
from poller.model.result import PollResult, Sample
from poller.model.series import Key, key_of
from poller.polling.duplicates import without
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


def test_queries_that_share_a_metric_but_no_series_lose_nothing() -> None:
    results = [of_a((1, "x")), of_b((2, "y"))]
    store = ResultStore([A, B])
    assert store.put(results, 0.0) == results
    assert store.current(0.0) == results


def test_a_series_of_two_queries_is_not_exported_and_the_others_are() -> None:
    store = ResultStore([A, B])
    a, b = store.put([of_a((1, "x"), (2, "z")), of_b((1, "x"), (3, "y"))], 0.0)
    assert [(s.metric, s.value) for s in a.samples] == [("own", 7), ("shared", 2)]
    assert [(s.metric, s.value) for s in b.samples] == [("shared", 3)]
    assert a.rejected == b.rejected == {"duplicate": 1}
    assert a.advice == "another query has the same series; distinguish them by fixed attributes"
    frame = Frame((SHARED, OWN), store.current(0.0))
    exported = {
        metric.name: [point.value for point in metric.data.data_points]  # type: ignore[union-attr]
        for metric in CatalogInstruments("1.2.3").collect(frame)
    }
    assert exported == {"own": [7], "shared": [2, 3]}


def test_a_series_of_an_earlier_tick_is_a_duplicate_as_well() -> None:
    store = ResultStore([A, B])
    assert store.put([of_a((1, "x"))], 0.0) == [of_a((1, "x"))]
    (b,) = store.put([of_b((1, "x"))], 1.0)
    assert (b.samples, b.rejected) == ((), {"duplicate": 1})
    assert [[s.metric for s in result.samples] for result in store.current(1.0)] == [["own"], []]


def test_a_series_is_exported_if_the_other_query_has_no_current_value() -> None:
    results = [of_a((1, "x")), of_b()]
    assert ResultStore([A, B]).put(results, 0.0) == results


def duplicates_in(results: Iterable[PollResult]) -> dict[str, set[Key]]:
    """Return the series that several of `results` contain, by a complete search."""
    samples = [sample for result in results for sample in result.samples]
    series = Counter((sample.metric, key_of(sample.attributes)) for sample in samples)
    duplicates: dict[str, set[Key]] = {}
    for (metric, key), count in series.items():
        if count > 1:
            duplicates.setdefault(metric, set()).add(key)
    return duplicates


def test_incremental_detection_equals_a_complete_search() -> None:
    chance = random.Random(1)
    queries = [
        a_query(f"q{number}", metrics=(SHARED, OWN) if number < 2 else (SHARED,), interval=10, max_age=30)
        for number in range(4)
    ]
    store, changes = ResultStore(queries), 0
    for now in range(300):
        query = chance.choice(queries)
        result = a_result(
            query,
            *(Sample("shared", 1, {"k": k}) for k in "xyz" if chance.random() < 0.4),
            *(Sample("own", 1, {"k": query.name}) for _ in query.metrics[1:]),
        )
        if chance.random() < 0.2:
            result = result._replace(outcome="failed", samples=(), error=PollError("timeout", "x"))
        (put,) = store.put([result], now)
        if chance.random() < 0.05:
            chance.shuffle(queries)
            store.swap(queries, {queries[0].name})
            continue
        good = [item.result for item in store.good(now)]
        duplicates = duplicates_in(good)
        assert put == without(result, duplicates)
        assert store.current(now) == [without(other, duplicates) for other in good]
        changes += put != result
    assert changes > 20

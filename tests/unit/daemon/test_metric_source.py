"""The exported metrics of one target."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from poller.daemon.metric_source import TargetMetricSource
from poller.model.result import Freshness, GoodResult, Sample
from poller.otlp.exporter import resource
from poller.polling.instruments import CatalogInstruments
from poller.polling.store import ResultStore
from poller.postgres.server_tracker import ServerInfo
from tests.bed.definitions import a_query, a_result, a_target

QUERY = a_query("n")


def a_source(store: ResultStore, database: str = "x", name: str = "a") -> TargetMetricSource:
    target, process = a_target(name, f"host=a dbname={database}"), resource("poller", "1", "1")
    return TargetMetricSource(target, store, [], CatalogInstruments("1"), process)


def exported(source: TargetMetricSource) -> tuple[object, list[float]]:
    """Return the name of the database and the values of a collection."""
    values = [point.value for metric in source.collect() for point in metric.data.data_points]  # type: ignore[union-attr]
    return source.resource.attributes.get("db.namespace"), values


def answers(source: TargetMetricSource, database: str) -> None:
    source.note_server(
        ServerInfo(
            "a", 5432, standby=False, timeline=1, lag=None, data_age=None, why="", at=0.0, database=database
        )
    )


class ClosingGauges:
    """Gauges during whose collection their target is removed."""

    definitions: Mapping[str, tuple[str, str]] = {}

    def __init__(self) -> None:
        self.source: TargetMetricSource | None = None

    def read(self, statuses: Sequence[Freshness]) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        del statuses
        if self.source is not None:
            self.source.close()
        return iter(())


def test_a_target_that_is_removed_during_a_collection_leaves_nothing_behind() -> None:
    instruments, gauges = CatalogInstruments("1"), ClosingGauges()
    target = a_target("a", "host=a dbname=x")
    gauges.source = TargetMetricSource(
        target, ResultStore([a_query()]), [gauges], instruments, resource("poller", "1", "1")
    )
    gauges.source.collect()
    assert instruments._last == {}  # noqa: SLF001 - no public method shows what is left


def test_each_value_has_the_name_of_its_own_database() -> None:
    store = ResultStore(
        [QUERY], [GoodResult(a_result(QUERY, Sample("n", 1, {}), database="x"), time.monotonic())]
    )
    source = a_source(store, "y")  # the connection string was changed while the poller was down
    assert exported(source) == ("x", [1])
    answers(source, "y")
    assert exported(source) == ("x", [1]), "its results are not stored yet"
    store.put([a_result(QUERY, Sample("n", 2, {}), database="y")], time.monotonic())
    assert exported(source) == ("y", [2])


def test_without_values_the_name_is_that_of_the_database_that_answered_last() -> None:
    source = a_source(ResultStore([QUERY]), "x")
    assert exported(source) == ("x", [])
    answers(source, "y")
    assert exported(source) == ("y", [])


def test_the_only_database_has_no_name_but_exports_no_values_of_the_previous_one() -> None:
    other = a_query("m")
    store = ResultStore([QUERY, other])
    source = a_source(store, name="")
    store.put([a_result(QUERY, Sample("n", 1, {}), database="x")], time.monotonic())
    assert exported(source) == (None, [1])
    store.put([a_result(other, Sample("m", 2, {}), database="y")], time.monotonic())
    assert exported(source) == (None, [2])

"""The exported metrics of one target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from poller.daemon.metric_source import TargetMetricSource
from poller.model.result import Freshness
from poller.otlp.exporter import resource
from poller.polling.instruments import CatalogInstruments
from poller.polling.store import ResultStore
from tests.bed.definitions import a_query, a_target


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

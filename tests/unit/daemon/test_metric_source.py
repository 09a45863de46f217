"""The exported metrics of one target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from poller.daemon.metric_source import TargetMetricSource
from poller.model.result import Freshness
from poller.model.secrets import Secret
from poller.model.target import Target
from poller.otlp.exporter import resource
from poller.polling.instruments import CatalogInstruments
from poller.polling.store import ResultStore
from tests.bed.definitions import a_query


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
    target = Target(
        name="a",
        url=Secret("host=a dbname=x"),
        connect_timeout=1.0,
        lock_timeout=1.0,
        require_standby="warn",
        max_replay_lag=None,
        max_active_backends=None,
        strict=False,
    )
    gauges.source = TargetMetricSource(
        target, ResultStore([a_query()]), [gauges], instruments, resource("poller", "1", "1")
    )
    gauges.source.collect()
    assert instruments._last == {}  # noqa: SLF001 - no public method shows what is left

"""Make the objects of one process from its settings, and join them."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry.metrics import NoOpMeter

from poller.announcer import Announcer
from poller.catalog import Catalog, Defaults, load, resolve
from poller.instruments import SelfMetrics, register_gauges
from poller.model import PollResult, QueryDefinition
from poller.polling import poll
from poller.replica import Replica
from poller.settings import Settings
from poller.store import SnapshotStore

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from poller.export import Push


def version() -> str:
    """The version of this package, as installed."""
    return importlib.metadata.version("obscura-poller")


def open_catalog(settings: Settings) -> Catalog:
    """Read the query files; raises ConfigError with every problem of every file."""
    defaults = Defaults(settings.interval, settings.timeout, settings.max_series, settings.namespace)
    return load(resolve(settings.queries), defaults)


def open_replica(settings: Settings) -> Replica:
    """Prepare the connection; raises ConfigError where no database is named."""
    settings.conninfo()
    return Replica(
        settings.conninfo, connect_timeout=settings.connect_timeout, lock_timeout=settings.lock_timeout
    )


def open_push(settings: Settings, *, periodic: bool) -> Push | None:
    """Begin to push; None without an endpoint (logs-only mode), and then the SDK is not even imported."""
    if settings.endpoint is None:
        return None
    import math

    from poller.export import Push, resource

    return Push(
        settings.endpoint,
        resource(settings.service_name, settings.instance, version()),
        interval=settings.export_interval if periodic else math.inf,
        timeout=settings.export_timeout,
    )


class Pipe:
    """The one way through: ask the replica, keep what is good, count, announce.

    `run` sends every tick through it and `poll` sends one.
    """

    def __init__(self, catalog: Catalog, replica: Replica, push: Push | None, *, log_results: bool) -> None:
        meter: Meter = push.meter if push else NoOpMeter("poller")
        self.store = SnapshotStore(catalog.queries)
        self.metrics = SelfMetrics(meter, self.store)
        register_gauges(meter, catalog.metrics.values(), self.store)
        self._replica = replica
        self._announcer = Announcer(every_result=log_results)

    def tick(
        self, queries: Sequence[QueryDefinition], on_result: Callable[[PollResult], None] = lambda _: None
    ) -> list[PollResult]:
        """Poll `queries` once."""
        results = poll(queries, self._replica.ask, on_result)
        self.store.put(results, time.monotonic())
        for result in results:
            self.metrics.record(result)
        self._announcer.tick(results)
        return results

"""Exported metrics of one target: its values, and the poller's own metrics about it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from poller.otlp.exporter import resource_of_target
from poller.polling.instruments import CatalogInstruments, StatusMetrics, read_store
from poller.postgres.conninfo import database_name

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric  # noqa: TID251 - for type checking only
    from opentelemetry.sdk.resources import Resource  # noqa: TID251 - for type checking only

    from poller.model.query import AttributeValue
    from poller.model.target import Target
    from poller.polling.store import ResultStore
    from poller.postgres.server_tracker import ServerInfo


class TargetMetricSource:
    """The metrics of one target, under a resource that names its database."""

    def __init__(
        self,
        target: Target,
        store: ResultStore,
        gauges: Sequence[StatusMetrics],
        instruments: CatalogInstruments,
        process: Resource,
    ) -> None:
        """Prepare; `gauges` are the poller's own metrics, and `process` is the resource of the process."""
        self.resource = process
        """Resource of the last collection; that of the process for the only target, which has no name."""
        self.gauges = gauges
        self._target = target
        self._store = store
        self._instruments = instruments
        self._process = process
        self._database = name_of_database(target) if target.name else ""
        self._described: str | None = None
        self._closed = False

    def collect(self) -> list[Metric]:
        """Return the metrics with their data points at this moment; `resource` is theirs from then on."""
        frame = read_store(self._store, self.gauges, self._target.name)
        if self._target.name:
            # The database of the values, because another one may have answered meanwhile.
            known = (result.database for result in frame.results if result.database)
            self._describe(next(known, self._database))
        metrics = self._instruments.collect(frame)
        if self._closed:  # meanwhile, so the instruments know the target again
            self._instruments.forget(self._target.name)
        return metrics

    def confirm_export(self) -> None:
        """Note that the metrics of the last collection are in the queue."""
        self._store.confirm_export()

    def close(self) -> None:
        """Discard what the instruments know of the target."""
        self._closed = True
        self._instruments.forget(self._target.name)

    def note_server(self, server: ServerInfo) -> None:
        """Note the database of the server that has answered; a changed `url_file` may name another one."""
        self._database = server.database

    def _describe(self, database: str) -> None:
        if database != self._described:
            self._described = database
            more = resource_attributes(self._target, database)
            self.resource = resource_of_target(self._process, self._target.name, more)


def resource_attributes(target: Target, database: str) -> dict[str, AttributeValue]:
    """Return the attributes that a target's resource has in addition to those of the process.

    There is no `server.address`, because a failover would change the series' identity.
    """
    if not target.name:
        return {}
    more: dict[str, AttributeValue] = {**target.resource, "db.system.name": "postgresql"}
    return more | ({"db.namespace": database} if database else {})


def name_of_database(target: Target) -> str:
    """Return the name of a target's database as far as its connection string has it; empty if unknown."""
    with contextlib.suppress(OSError, ValueError):  # its polls report that its file cannot be read
        return target.database or database_name(target.conninfo())
    return ""

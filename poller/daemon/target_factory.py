"""Factory of the pollers of all targets of one process, and of the parts that they share."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry.metrics import NoOpMeter

from poller.config.settings import Settings
from poller.daemon.build import open_exporter, open_replica, open_telemetry, version
from poller.daemon.discovery_poller import DiscoveryPoller
from poller.daemon.poll_cycle import PollCycle, longest_absence
from poller.daemon.target_poller import TargetPoller
from poller.daemon.telemetry_export import TelemetryExport
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.secrets import mask_conninfo
from poller.otlp.queue_lock import LOCK, FolderLock, make_folder
from poller.polling.state_file import StateFile
from poller.polling.store import ResultStore
from poller.postgres.admission import Admission
from poller.postgres.cancellation import CancelToken
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.conninfo import database_name, is_conninfo, misunderstood
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.poll_metrics import PollMetrics, TargetPolls
from poller.telemetry.query_metrics import QueryMetrics
from poller.telemetry.replica_metrics import ReplicaMetrics
from poller.telemetry.target_metrics import TargetMetrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Meter

    from poller.model.query import AttributeValue, QueryDefinition
    from poller.model.result import GoodResult
    from poller.model.target import Target
    from poller.polling.instruments import CatalogInstruments, StatusMetrics


class TargetFactory:
    """The parts that all targets of one process share, and the factory of their pollers."""

    def __init__(
        self,
        settings: Settings,
        *,
        daemon: bool = False,
        push: bool = True,
        leads: Callable[[], bool] | None = None,
        cancel_token: CancelToken | None = None,
    ) -> None:
        """Open the exporter and the state folder; raises ConfigError.

        A `daemon` pushes and stores values periodically, logs which server it polls, and logs all values if
        nothing is exported. Without `push` nothing is exported. With an election, the metrics of targets are
        exported only while `leads` returns true, and no values are stored, because those of the previous
        leader are newer. `cancel_token` is that of other connections of the process.
        """
        self._settings = settings
        self._leads = leads or (lambda: True)
        self._daemon = daemon
        self._own = settings.own_metrics if push else "off"
        # One for all targets, because each has two file descriptors.
        self._cancel_token = cancel_token or CancelToken()
        self._primaries: set[str] = set()
        self._state: StateFile | None = None
        if daemon and settings.state_dir is not None:
            make_folder(settings.state_dir)
            if settings.endpoint is None:  # otherwise the queue holds the lock
                with contextlib.suppress(OSError):  # a full disk
                    self._folder_lock = FolderLock(settings.state_dir, LOCK)
        if daemon and settings.state_dir is not None and leads is None:
            self._state = StateFile(settings.state_dir)
        self.exporter = open_exporter(settings, periodic=daemon, leads=self._leads) if push else None
        self.telemetry = open_telemetry(settings, self.exporter) if push else TelemetryExport()
        self._instruments: CatalogInstruments | None = None
        self._metrics: PollMetrics | None = None
        if self.exporter is not None and self._own != "off":
            self._metrics = PollMetrics(self.exporter.meter, by_query=self._own == "query")

    @property
    def meter(self) -> Meter:
        """Meter of the poller's own metrics, which does nothing unless they are exported."""
        return NoOpMeter("poller") if self.exporter is None or self._metrics is None else self.exporter.meter

    def interrupt(self) -> None:
        """End the ticks in progress of all targets, from another thread or a signal handler."""
        self._cancel_token.cancel()

    def resume(self, *, idle: bool) -> None:
        """After `interrupt`, let the pollers that are opened from now on run; `idle` if no tick is left."""
        before, self._cancel_token = self._cancel_token, CancelToken()
        if idle:
            before.close()

    def open(
        self,
        target: Target,
        queries: Sequence[QueryDefinition],
        restored: Sequence[GoodResult] | None = None,
    ) -> TargetPoller:
        """Prepare the polls of `queries` on `target` without opening a connection.

        It starts with the values `restored`, by default those of the previous run. Raises ConfigError if
        libpq rejects the name of the only database of a poller without POLLER_TARGETS.
        """
        if not target.name and not is_conninfo(conninfo := target.conninfo()):
            where = self._settings.source("database_url").name
            raise ConfigError([invalid(where, "; ".join(misunderstood(conninfo)))])
        store = self._open_store(target, queries, restored)
        tracing = self.telemetry.tracing_of(target.name)
        tracker = ServerTracker(longest_absence(queries), announce_first=self._daemon and not target.name)
        breaker = CircuitBreaker(self._settings.max_duty_cycle, target.max_active_backends)
        admission = Admission(
            target.require_standby,
            target.max_replay_lag,
            breaker.check,
            count_active=target.max_active_backends is not None,
            strict=target.strict,
            report_lag=self._settings.own_metrics != "off",
            warned=self._primaries,
        )
        reported: list[Callable[[ServerInfo], None]] = [tracker.record, tracing.note]
        replica = open_replica(self._settings, target, admission, reported, self._cancel_token)
        gauges: list[StatusMetrics] = []
        target_metrics: list[TargetMetrics] = []
        if self._metrics is not None:
            target_metrics = [TargetMetrics()] if target.name or self._own == "target" else []
            gauges = [
                QueryMetrics(states_only=self._own == "target"),
                *target_metrics,
                ReplicaMetrics(tracker),
            ]
        metrics = None
        if self._metrics is not None:
            metrics = TargetPolls(self._metrics, tracing.context)
        cycle = PollCycle(
            replica,
            store,
            tracker=tracker,
            tracing=tracing,
            metrics=metrics,
            breaker=breaker,
            log=PollLog(
                every_result=self._daemon and self.exporter is None,
                repeats=self._daemon,
                servers=not (target.name and self._daemon),
                within=tracing.of,
            ),
            more=target_metrics,
            attributes=target.attributes,
            leads=self._leads,
        )
        instance = target.name or self._settings.instance
        if target.databases is None:
            poller = TargetPoller(target, queries, cycle, instance)
        else:
            poller = DiscoveryPoller(
                target, target.databases, queries, cycle, instance, self._discoveries, target_metrics
            )
            gauges += [poller.metrics] if self._metrics is not None else []
        poller.gauges = gauges
        self._export(poller)
        reported.append(poller.note_server)
        return poller

    def close(self, poller: TargetPoller) -> None:
        """Export the values of a target no more, and close its connection as soon as it is not in use."""
        if self.exporter is not None and self._instruments is not None and poller.collect is not None:
            poller.on_database = lambda: None  # a tick in progress must not export the target again
            self.exporter.remove(poller.collect)
            self._instruments.forget(poller.name)
        poller.retire()

    def withdraw(self, poller: TargetPoller) -> None:
        """Export only the values of a target that is not polled any more, until `close`."""
        poller.gauges = []
        poller.retire()

    def forget(self, name: str) -> None:
        """Delete the stored values of a target that was removed."""
        if self._state is not None:
            self._state.forget(name)

    def retain(self, retained: Callable[[str], bool]) -> None:
        """Delete the stored values of all targets except those whose name is to be `retained`."""
        if self._state is not None:
            self._state.retain_targets(retained)

    def _open_store(
        self, target: Target, queries: Sequence[QueryDefinition], restored: Sequence[GoodResult] | None
    ) -> ResultStore:
        if self._state is None:
            return ResultStore(queries, restored or ())
        values = self._state.of(target.name, self._identity(target))
        values.retain({query.name for query in queries})
        if restored is None:
            restored = values.load(queries, time.monotonic(), time.time())
        return ResultStore(queries, restored, values)

    def _identity(self, target: Target) -> str:
        """Return a text that differs for other databases and other attributes.

        It contains no secret, so that a rotated password does not make it another database.
        """
        url = mask_conninfo(target.url.reveal()) if target.url else str(target.url_file or "")
        if not target.name:
            url = self._settings.text_of("database_url")
        libpq = [
            os.environ.get(f"PG{name}", "") for name in ("HOST", "HOSTADDR", "PORT", "DATABASE", "SERVICE")
        ]
        more = [target.database or "", str(target.oid or ""), repr(sorted(target.attributes.items()))]
        more = more if target.name else []
        return " ".join([url, *libpq, *more])

    @functools.cached_property
    def _discoveries(self) -> Counter:
        return self.meter.create_counter(
            "poller.discoveries",
            unit="{discovery}",
            description="Reads of a server's list of databases by outcome.",
        )

    def _export(self, poller: TargetPoller) -> None:
        """Export the values of a target, and its gauges, under the target's own resource."""
        if self.exporter is None:
            return
        from poller.otlp.exporter import resource_of_target
        from poller.polling.instruments import CatalogInstruments, read_store

        exporter = self.exporter

        if self._instruments is None:
            self._instruments = CatalogInstruments(version(), starts=self._daemon)
        instruments, store, target = self._instruments, poller.cycle.store, poller.target
        poller.collect = lambda: instruments.collect(read_store(store, poller.gauges, target.name))
        if not target.name:
            exporter.add(poller.collect, exporter.resource, store.confirm_export)
            return

        def describe() -> None:
            assert poller.collect is not None  # noqa: S101 # set above
            instance, more = identity_of(self._settings, target, poller.database)
            described = resource_of_target(exporter.resource, instance, more)
            exporter.add(poller.collect, described, store.confirm_export)

        poller.database = name_of_database(target)
        poller.on_database = describe
        describe()


def identity_of(settings: Settings, target: Target, database: str) -> tuple[str, dict[str, AttributeValue]]:
    """Return `service.instance.id` of a target's series, and the other resource attributes of the target.

    There is no `server.address`, because a failover would change the series' identity.
    """
    if not target.name:
        return settings.instance, {}
    more: dict[str, AttributeValue] = {**target.resource, "db.system.name": "postgresql"}
    return target.name, more | ({"db.namespace": database} if database else {})


def name_of_database(target: Target) -> str:
    """Return the name of a target's database as far as its connection string has it; empty if unknown."""
    with contextlib.suppress(OSError, ValueError):  # its polls report that its file cannot be read
        return target.database or database_name(target.conninfo())
    return ""

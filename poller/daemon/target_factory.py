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
from poller.daemon.discovery_poller import DatabasePollers, DiscoveryPoller
from poller.daemon.poll_cycle import PollCycle, longest_absence
from poller.daemon.target_poller import AnswerListener, TargetPoller
from poller.daemon.telemetry_export import TelemetryExport
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.leader import NO_ELECTION, Leadership
from poller.model.secrets import mask_conninfo
from poller.otlp.queue_lock import LOCK, FolderLock, make_folder
from poller.polling.state_file import StateFile
from poller.polling.store import ResultStore
from poller.postgres.admission import Admission
from poller.postgres.cancellation import CancelToken
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.conninfo import is_conninfo, misunderstood
from poller.postgres.server_tracker import ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.poll_metrics import PollMetrics, TargetPolls
from poller.telemetry.status_metrics import DiscoveryMetrics, QueryMetrics, ReplicaMetrics, TargetMetrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Meter

    from poller.daemon.metric_source import TargetMetricSource
    from poller.model.query import QueryDefinition
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
        leadership: Leadership = NO_ELECTION,
        cancel_token: CancelToken | None = None,
    ) -> None:
        """Open the exporter and the state folder; raises ConfigError.

        A `daemon` pushes and stores values periodically, logs which server it polls, and logs all values if
        nothing is exported. Without `push` nothing is exported. With an election, the metrics of targets are
        exported only while this process leads, and no values are stored, because those of the previous
        leader are newer. `cancel_token` is that of other connections of the process.
        """
        self._settings = settings
        self._leadership = leadership
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
        if daemon and settings.state_dir is not None and leadership is NO_ELECTION:
            self._state = StateFile(settings.state_dir)
        self.exporter = open_exporter(settings, periodic=daemon, leadership=leadership) if push else None
        self.telemetry = open_telemetry(settings, self.exporter) if push else TelemetryExport()
        self._sources: dict[TargetPoller, TargetMetricSource] = {}
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
        pollers: DatabasePollers | None = None,
    ) -> TargetPoller:
        """Prepare the polls of `queries` on `target` without opening a connection.

        It starts with the values `restored`, by default those of the previous run. If the databases of the
        target are discovered, `pollers` poll them. Raises ConfigError if libpq rejects the name of the only
        database of a poller without POLLER_TARGETS.
        """
        if not target.name and not is_conninfo(conninfo := target.conninfo()):
            where = self._settings.source("database_url").name
            raise ConfigError([invalid(where, "; ".join(misunderstood(conninfo)))])
        store = self._open_store(target, queries, restored)
        tracing = self.telemetry.tracing_of(target.name)
        tracker = ServerTracker(longest_absence(queries), announce_first=self._daemon and not target.name)
        breaker = CircuitBreaker(self._settings.max_duty_cycle, target.max_active_backends)
        report_lag = self._settings.own_metrics != "off"
        admission = Admission.of(target, breaker.check, report_lag=report_lag, warned=self._primaries)
        gauges: list[StatusMetrics] = []
        target_metrics: list[TargetMetrics] = []
        discovery_metrics = DiscoveryMetrics()
        metrics = None
        if self._metrics is not None:
            target_metrics = [TargetMetrics()] if target.name or self._own == "target" else []
            gauges = [
                QueryMetrics(states_only=self._own == "target"),
                *target_metrics,
                ReplicaMetrics(tracker),
                *([discovery_metrics] if target.databases is not None else []),
            ]
            metrics = TargetPolls(self._metrics, tracing.context)
        listener = AnswerListener()
        listeners = [tracker.record, tracing.note, listener.note_server]
        source = None
        if self.exporter is not None:
            from poller.daemon.metric_source import TargetMetricSource

            source = TargetMetricSource(target, store, gauges, self._instruments, self.exporter.resource)
            listeners.append(source.note_server)
        replica = open_replica(self._settings, target, admission, listeners, self._cancel_token)
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
            leadership=self._leadership,
        )
        instance = target.name or self._settings.instance
        if target.databases is None:
            poller = TargetPoller(target, queries, cycle, instance, listener)
        else:
            poller = DiscoveryPoller(
                target,
                target.databases,
                queries,
                cycle,
                instance,
                listener,
                pollers,
                self._discoveries,
                discovery_metrics,
            )
        if self.exporter is not None and source is not None:
            self.exporter.add(source)
            self._sources[poller] = source
        return poller

    def close(self, poller: TargetPoller) -> None:
        """Stop exporting the values of a target, and close its connection as soon as it is not in use."""
        if self.exporter is not None and (source := self._sources.pop(poller, None)) is not None:
            self.exporter.remove(source)
            source.close()
        poller.retire()

    def withdraw(self, poller: TargetPoller) -> None:
        """Export only the values of a target that is not polled any more, until `close`."""
        if (source := self._sources.get(poller)) is not None:
            source.gauges = ()
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

    @functools.cached_property
    def _instruments(self) -> CatalogInstruments:
        from poller.polling.instruments import CatalogInstruments

        return CatalogInstruments(version(), starts=self._daemon)

"""Daemon process: start-up, schedule, export, reload and ordered shutdown."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from poller.config.catalog_process import CatalogProcess
from poller.config.file_watcher import Fingerprint, Watcher, fingerprint
from poller.config.loader_process import LoaderProcess
from poller.config.orphans import ORPHANS
from poller.config.settings import Settings
from poller.daemon.build import open_lock, version
from poller.daemon.elected_pollers import ElectedPollers
from poller.daemon.health import places
from poller.daemon.heartbeat import Heartbeat
from poller.daemon.heartbeat_content import HeartbeatContent
from poller.daemon.leader_election import ElectionConfig, LeaderElection
from poller.daemon.reload import Reload
from poller.daemon.scheduler import PollScheduler
from poller.daemon.sd_notify import SystemdNotifier
from poller.daemon.server_queues import QueueConfig
from poller.daemon.shard_targets import ShardTargets
from poller.daemon.signals import StopSignal, on_hangup
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_pollers import TargetPollers
from poller.daemon.watchdog import BEAT_SECONDS, CHANGE_SECONDS, Watchdog
from poller.model.catalog import Configuration
from poller.model.duration import format_duration
from poller.model.leader import NO_ELECTION
from poller.model.retry import RETRY, RetryConfig
from poller.model.text import counted
from poller.model.tick import ticks
from poller.telemetry.logging import configure
from poller.telemetry.poll_log import log_withheld
from poller.telemetry.process_metrics import register_leader, register_queue, register_shard
from poller.terminal.exit import run_to_end

logger = logging.getLogger(__name__)

_WORKER_SHARE = 0.4
"""Share of the grace period in which the running tick may end. The last export gets the rest."""
_LEAST_GRACE = 0.5
"""Minimum time in seconds until a stopping process is ended by force."""
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""More than a tick of a thousand queries allocates at once. A tick leaves no cyclic garbage, so a garbage
collection during it would be useless."""
_REFUSAL_RETRY = RetryConfig(first_pause=1.0, longest_pause=600.0)
"""Pauses between two tries of one of many targets that its server refuses: each try is a line in its log."""
_PATIENCE = 900.0
"""Seconds above the longest possible tick after which a tick counts as hung."""


def main(loader: LoaderProcess, requests: Sequence[bool]) -> None:
    """Run the daemon with the data that `loader` reads, and end the process with its exit code.

    `requests` is non-empty after a reload was requested. Raises LoaderError.
    """
    run_to_end(lambda: serve(loader, requests))


def serve(loader: LoaderProcess, requests: Sequence[bool]) -> None:
    """Poll on schedule and export until a signal requests the stop; then end the process.

    Raises ConfigError with every problem, LoaderError if the loader failed or printed requested output.
    """
    settings: Settings = loader.receive()
    configure(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        logger.warning(warning)
    if settings.endpoint is not None:
        importlib.import_module("poller.otlp.exporter")  # imported while the loader reads the files
    sources, first_fingerprint = loader.receive()
    configuration: Configuration = loader.receive()
    loader.close()
    daemon = Daemon(settings, configuration, sources, first_fingerprint)
    on_hangup(daemon.watcher.request_reload)
    if requests:
        daemon.watcher.request_reload()
    stop = StopSignal()
    daemon.start()
    stop.wait()
    daemon.stop()


class Daemon:
    """All parts of the running service."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        sources: Sequence[Path],
        first_fingerprint: Fingerprint,
    ) -> None:
        """Build the parts, beginning with those that others need; raises ConfigError."""
        self._settings = settings
        only = settings.targets is None
        lock = open_lock(settings)
        self._election: LeaderElection | None = None
        if lock is not None:
            self._election = LeaderElection(
                lock,
                ElectionConfig(settings.leader_ttl),
                self._change_leader,
                on_reason=self._report_election,
            )
        leadership = (election := self._election) or NO_ELECTION
        self._factory = TargetFactory(settings, daemon=True, leadership=leadership)
        self._scheduler = PollScheduler(
            QueueConfig(settings.max_connections),
            on_tick=self._report_tick,
            on_first_polls=self._hurry,
            leadership=leadership,
            # A connection attempt may take a multiple of it: several hosts, each tried twice. A tick of one
            # of many targets never counts as hung, because a restart would stop the others.
            patience=_PATIENCE + 20 * settings.connect_timeout if only else math.inf,
            refusal_retry=RETRY if only else _REFUSAL_RETRY,
        )
        if not only:
            register_queue(self._factory.meter, self._scheduler.waiting)
        self._pollers = TargetPollers(self._factory, self._scheduler, ShardTargets(settings.own_shard))
        self._server_watcher: Watcher | None = None
        if shard := settings.own_shard:
            register_shard(self._factory.meter, shard, self._pollers.configured)
            # Connection strings are read at each connect, also without POLLER_WATCH.
            self._server_watcher = Watcher(self._pollers.url_files, self._move_targets)
        self._elected: ElectedPollers | None = None
        if election is None:
            self._pollers.apply(configuration)
        else:
            register_leader(
                self._factory.meter,
                election.status.name,
                lambda: (election.polls, election.changes),
            )
            self._elected = ElectedPollers(self._factory, self._scheduler, self._pollers, configuration)
        self._reloading = Reload(
            configuration,
            CatalogProcess(settings, sources),
            apply=(self._elected or self._pollers).apply,
            meter=self._factory.meter,
        )
        self.watcher = Watcher(
            functools.partial(fingerprint, sources),
            self._reload,
            watch=settings.watch,
            initial=first_fingerprint,
        )
        self._notifier = SystemdNotifier(os.environ)
        self._heartbeat = Heartbeat(places(settings.health_file, settings.state_dir), settings.instance)
        exporter = self._factory.exporter
        self._content = HeartbeatContent(
            self._scheduler, self._pollers, self._reloading, exporter, self._election
        )
        self._watchdog = Watchdog(
            [self._scheduler, *([exporter] if exporter else [])],
            [self._notifier.beat, self._beat],
            self._heartbeat.remove,
            every=self._notifier.every(BEAT_SECONDS),
        )
        if exporter is not None:
            exporter.delivery.on_change = self._watchdog.soon

    def start(self) -> None:
        """Start every thread; raises ConfigError if the leader election can never succeed."""
        self._log_start()
        if self._election is not None and self._elected is not None:
            self._elected.start()
            self._election.start()
        gc.freeze()  # the catalogue and the SDK's objects live until the end
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
        gc.enable()
        self._scheduler.start()
        self.watcher.start()
        if self._server_watcher is not None:
            self._server_watcher.start()
        self._watchdog.start()
        self._notifier.ready(self._status())

    def stop(self) -> NoReturn:
        """Stop polling, export once more and end the process, within the grace period."""
        grace = self._settings.grace_period
        deadline = time.monotonic() + grace
        self._notifier.stopping()
        # A stopped reader of the log would block the next record forever.
        timer = threading.Timer(max(grace, _LEAST_GRACE), os._exit, [0])
        timer.daemon = True
        timer.start()
        if self._election is not None:
            self._election.resign()
        logger.info("stopping: no new poll, the running one is cancelled, the last values are pushed")
        if self._scheduler.stop(self._factory.interrupt, grace * _WORKER_SHARE):
            for poller in self._pollers:
                poller.retire()
        if (exporter := self._factory.exporter) is not None:
            # The export may use the remaining time except for a reserve for the exit.
            exporter.shutdown(max(0.1, deadline - time.monotonic() - 0.5), patient=False)
        if self._election is not None:
            # Not before the last export, which could otherwise be newer than the first of the next leader.
            self._election.release(max(0.1, min(1.0, deadline - time.monotonic() - 0.4)))
        self._watchdog.stop()
        logger.info("stopped")
        # Spans and log records may use the time that the export has left.
        self._factory.telemetry.shutdown(max(0.1, deadline - time.monotonic() - 0.3))
        logging.shutdown()
        sys.stdout.flush()
        # An ordinary exit would wait for a worker whose server does not answer.
        os._exit(0)

    def _change_leader(self, leads: bool) -> None:
        """Begin or cease to poll, and report it."""
        assert self._elected is not None  # noqa: S101 - it is created together with the election
        self._elected.change(leads)
        self._report_election()
        self._notifier.ready(self._status())

    def _report_election(self) -> None:
        """Report the state of the election now."""
        self._watchdog.soon()

    def _report_tick(self) -> None:
        """Report the state soon after a tick."""
        self._watchdog.soon(CHANGE_SECONDS)

    def _hurry(self) -> None:
        """Export and report the first values now."""
        if (exporter := self._factory.exporter) is not None:
            exporter.soon()
        self._watchdog.soon()

    def _reload(self, requested: bool) -> bool:
        """Reload the query files and targets; return false if they changed while they were read."""
        self._notifier.reloading()
        try:
            return self._reloading.run(requested) != "unsteady"
        finally:
            self._notifier.ready(self._status())

    def _move_targets(self, _: bool) -> bool:
        """Poll the targets whose connection strings name a server of this shard now."""
        self._pollers.apply_servers()
        return True

    def _beat(self, stuck: str | None) -> None:
        self._heartbeat.write(self._content.read(stuck), self._content.queries())
        self._heartbeat.write_details(self._content.details)
        log_withheld({poller.name: poller.cycle.newly_withheld() for poller in self._pollers})
        ORPHANS.reap()

    def _status(self) -> str:
        """Return the status text for the service manager."""
        refused = ", changed files rejected" if self._reloading.problems else ""
        catalog = self._reloading.configuration.catalog
        state = self._election.status.state if self._election is not None else "leader"
        verb = "following, not polling" if state == "follower" else "polling"
        return f"{verb} {counted(len(catalog.queries), 'query')}{self._on_targets()}{refused}"

    def _on_targets(self) -> str:
        if self._settings.targets is None:
            return ""
        targets = len(self._pollers)
        if self._election is not None and not self._election.polls:  # it will poll them when it leads
            targets = len(
                ShardTargets(self._settings.own_shard).select(self._reloading.configuration.targets)
            )
        return f" on {counted(targets, 'target')}"

    def _share(self) -> dict[str, str]:
        """Return the shard of this process and its share of the targets, for the log."""
        if (shard := self._settings.own_shard) is None:
            return {}
        targets = self._reloading.configuration.targets
        own = len(ShardTargets(shard).select(targets))
        return {"shard": f"{shard}, {own} of {counted(len(targets), 'target')}"}

    def _log_start(self) -> None:
        """Log the number of queries, the ticks, the databases and the endpoints."""
        settings = self._settings
        catalog = self._reloading.configuration.catalog
        all_ticks = ticks(catalog.queries, settings.instance)
        if settings.targets is None:
            database = settings.text_of("database_url") or "libpq environment"
        else:
            database = str(settings.targets)
        logger.info(
            "polling %s%s",
            counted(len(catalog.queries), "query"),
            self._on_targets(),
            extra={
                "version": version(),
                "database" if settings.targets is None else "targets": database,
                **self._share(),
                **({"election": self._election.status.name} if self._election is not None else {}),
                "push": str(settings.endpoint) if settings.endpoint else "none (logs only)",
                "traces": str(settings.traces_to or "none"),
                "ticks": ", ".join(
                    f"{tick.name} ({len(tick.queries)}, offset {format_duration(round(tick.offset, 1))})"
                    if settings.targets is None and tick.schedule is None
                    else f"{tick.name} ({len(tick.queries)})"
                    for tick in all_ticks
                ),
            },
        )

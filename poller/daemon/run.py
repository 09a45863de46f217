"""Daemon process: start-up, schedule, export, reload and ordered shutdown."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from poller.config.loader_process import LoaderError, LoaderProcess
from poller.config.orphans import ORPHANS
from poller.config.queries.file_watcher import Watcher, contents, fingerprint
from poller.config.settings import Settings
from poller.daemon.build import Telemetry, open_memory, open_push, version
from poller.daemon.health import places
from poller.daemon.heartbeat import Heartbeat
from poller.daemon.heartbeat_content import HeartbeatContent
from poller.daemon.poll_cycle import PollCycle
from poller.daemon.reload import Reload
from poller.daemon.scheduler import PollScheduler
from poller.daemon.sd_notify import SystemdNotifier
from poller.daemon.signals import StopSignal, on_hangup
from poller.daemon.watchdog import BEAT_SECONDS, NEWS_SECONDS, Watchdog
from poller.model.catalog import Catalog
from poller.model.diagnostics import invalid
from poller.model.duration import format_duration
from poller.model.errors import ConfigError
from poller.model.text import counted
from poller.model.tick import Tick, ticks
from poller.polling.store import ResultStore
from poller.telemetry.logging import configure
from poller.terminal.exit import run_to_end

if TYPE_CHECKING:
    from poller.otlp.exporter import MetricExporter
    from poller.postgres.replica import Replica

logger = logging.getLogger(__name__)

_WORKER_SHARE = 0.4
"""Share of the grace period in which the running tick may end. The last push gets the rest."""
_LEAST_GRACE = 0.5
"""Minimum time in seconds until a stopping process is ended by force."""
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""More than a tick of a thousand queries allocates at once. A tick leaves no cyclic garbage, so a garbage
collection during it would be useless."""
_PATIENCE = 900.0
"""Seconds above the longest possible tick after which a tick counts as hung."""


def main(loader: LoaderProcess, requests: Sequence[bool]) -> None:
    """Run the daemon with the data that `loader` reads, and end the process with its exit code.

    `asked` is non-empty after a reload was requested. Raises LoaderError.
    """
    run_to_end(lambda: serve(loader, requests))


def serve(loader: LoaderProcess, requests: Sequence[bool]) -> None:
    """Poll on schedule and push until a signal requests the stop; then end the process.

    Raises ConfigError with every problem, LoaderError if the loader failed or printed requested output.
    """
    settings: Settings = loader.receive()
    configure(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        logger.warning(warning)
    if settings.endpoint is not None:
        importlib.import_module("poller.otlp.exporter")  # imported while the loader reads the files
    sources, first_fingerprint = loader.receive()
    notifier = SystemdNotifier(os.environ)

    def read_again(requested: bool) -> bool:
        notifier.reloading()
        try:
            return reload(requested) != "unsteady"
        finally:
            notifier.ready(_status(reload))

    look = functools.partial(fingerprint, sources)
    watcher = Watcher(look, read_again, watch=settings.watch, initial=first_fingerprint)
    on_hangup(watcher.ask)
    if requests:
        watcher.ask()
    catalog: Catalog = loader.receive()
    loader.close()
    settings.conninfo()  # reports a missing database before anything is opened
    memory = open_memory(settings)
    store = ResultStore(
        catalog.queries,
        memory.load(catalog.queries, time.monotonic(), time.time()) if memory else (),
    )
    push = open_push(settings, store, periodic=True)
    telemetry = Telemetry(settings, push)
    cycle = PollCycle(catalog, settings, store, push, daemon=True, memory=memory, tracing=telemetry.tracing)
    planned = ticks(catalog.queries, settings.instance)
    stop = StopSignal()

    def rest(seconds: float) -> None:
        cycle.replica.rest(seconds)
        watchdog_thread.soon(NEWS_SECONDS)

    daemon = PollScheduler(
        planned,
        cycle.run,
        rest=rest,
        on_overrun=cycle.overran,
        on_first_polls=lambda: _hurry([push, watchdog_thread]),
        # A connection attempt may take a multiple of it: several hosts, each tried twice.
        patience=_PATIENCE + 20 * settings.connect_timeout,
    )
    reload = Reload(
        catalog,
        daemon,
        load=functools.partial(_read_again, settings),
        look=functools.partial(contents, sources),
        plan=lambda queries: ticks(queries, settings.instance),
        swap=cycle.swap,
        meter=cycle.meter,
    )
    heartbeat = Heartbeat(places(settings.health_file, settings.state_dir), settings.instance)
    content = HeartbeatContent(daemon, cycle, reload, push)
    watchdog_thread = Watchdog(
        [daemon.stuck, *([push.stuck] if push else [])],
        [
            notifier.beat,
            lambda stuck: heartbeat.write(content.read(stuck), content.queries()),
            lambda _: cycle.announce_stale(),
            lambda _: ORPHANS.reap(),
        ],
        heartbeat.remove,
        every=notifier.every(BEAT_SECONDS),
    )
    _begin(settings, planned)
    gc.freeze()  # the catalogue and the SDK's objects live until the end
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    gc.enable()
    daemon.start()
    watcher.start()
    watchdog_thread.start()
    notifier.ready(_status(reload))
    stop.wait()
    notifier.stopping()
    _end(settings.grace_period, daemon, cycle.replica, push, telemetry, watchdog_thread)


def _read_again(settings: Settings) -> Catalog:
    """Return the queries as a loader process reads them; raises ConfigError, also if that process fails."""
    try:
        catalog: Catalog = LoaderProcess.run("load", settings)
    except LoaderError as error:
        message = f"cannot be read again: {error}; send SIGHUP to retry"
        raise ConfigError([invalid("POLLER_QUERIES", message)]) from None
    return catalog


def _begin(settings: Settings, planned: Sequence[Tick]) -> None:
    """Log the number of queries, the ticks, the database and the endpoints."""
    logger.info(
        "polling %s",
        counted(sum(len(tick.queries) for tick in planned), "query"),
        extra={
            "version": version(),
            "database": settings.text_of("database_url") or "libpq environment",
            "push": str(settings.endpoint) if settings.endpoint else "none (logs only)",
            "traces": str(settings.traces_to or "none"),
            "ticks": ", ".join(
                f"{tick.name} ({len(tick.queries)}, offset {format_duration(round(tick.offset, 1))})"
                for tick in planned
            ),
        },
    )


def _status(reload: Reload) -> str:
    """Return the status text for the service manager."""
    refused = ", changed files refused" if reload.problems else ""
    return f"polling {counted(len(reload.catalog.queries), 'query')}{refused}"


def _hurry(receivers: Sequence[MetricExporter | Watchdog | None]) -> None:
    """Start a push and a heartbeat now."""
    for receiver in receivers:
        if receiver is not None:
            receiver.soon()


def _end(
    grace: float,
    daemon: PollScheduler,
    replica: Replica,
    push: MetricExporter | None,
    telemetry: Telemetry,
    watchdog_thread: Watchdog,
) -> None:
    """Stop polling, push once more and end the process, within `grace` seconds."""
    deadline = time.monotonic() + grace
    # A stopped reader of the log would block the next record forever.
    watchdog = threading.Timer(max(grace, _LEAST_GRACE), os._exit, [0])
    watchdog.daemon = True
    watchdog.start()
    logger.info("stopping: no new poll, the running one is cancelled, the last values are pushed")
    at_rest = daemon.stop(replica.interrupt, grace * _WORKER_SHARE)
    if at_rest:
        replica.close()
    if push is not None:
        # The push may use the remaining time except for a reserve for the exit.
        push.shutdown(max(0.1, deadline - time.monotonic() - 0.5), patient=False)
    watchdog_thread.stop()
    logger.info("stopped")
    # Spans and log records may use the time that the push has left.
    telemetry.shutdown(max(0.1, deadline - time.monotonic() - 0.3))
    logging.shutdown()
    sys.stdout.flush()
    # An ordinary exit would wait for a worker whose server does not answer.
    os._exit(0)

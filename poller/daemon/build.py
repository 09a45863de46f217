"""Factories for the connection, the exporter, the queue and the telemetry of one process."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from opentelemetry.metrics import NoOpMeter

from poller.config.settings import Settings
from poller.daemon.poll_cycle import PollCycle, longest_absence
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, StateInUseError
from poller.model.text import counted
from poller.otlp.queue_lock import make_folder
from poller.polling.state_file import StateFile
from poller.polling.store import ResultStore
from poller.postgres.admission import Admission
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.connection import is_conninfo, misunderstood
from poller.postgres.password import password_from
from poller.postgres.replica import Replica
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.postgres.sqlcomment import Tags, tag_name, untagged
from poller.postgres.transaction import TransactionLimits
from poller.telemetry.poll_log import PollLog
from poller.telemetry.poll_metrics import PollMetrics
from poller.telemetry.replica_metrics import register_replica_gauges
from poller.telemetry.traces import Tracing, tag_name_and_span

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from poller.model.query import QueryDefinition
    from poller.otlp.exporter import MetricExporter
    from poller.otlp.retry_sender import RetrySender
    from poller.otlp.sending_queue import SendingQueue


logger = logging.getLogger(__name__)


def version() -> str:
    """Return the installed version of this package."""
    return importlib.metadata.version("obscura-poller")


def open_exporter(settings: Settings, store: ResultStore, *, periodic: bool) -> MetricExporter | None:
    """Start to export the values in `store`; return None without an endpoint.

    Without an endpoint (logs-only mode) no SDK is imported. Raises ConfigError if the endpoint's variables or
    the state folder cannot be used.
    """
    if settings.endpoint is None:
        return None
    import math

    from poller.otlp.exporter import MetricExporter, resource
    from poller.polling.instruments import CatalogInstruments, read_store
    from poller.telemetry.query_metrics import QueryMetrics

    own = settings.self_metrics != "off"
    queue = open_queue(settings, shared=not periodic)
    described = resource(settings.service_name, settings.instance, version())
    exporter = MetricExporter(
        settings.endpoint,
        described,
        queue,
        interval=settings.export_interval if periodic else math.inf,
        timeout=settings.export_timeout,
    )
    instruments = CatalogInstruments(
        functools.partial(read_store, store),
        described,
        version(),
        query_metrics=QueryMetrics() if own else None,
        starts=periodic,
    )
    exporter.add(instruments.collect)
    return exporter


def open_queue(settings: Settings, *, shared: bool) -> SendingQueue:
    """Open the queue of undelivered requests; in memory if `shared` and another process uses the folder."""
    from poller.otlp.sending_queue import SendingQueue

    def opened(folder: Path | None) -> SendingQueue:
        return SendingQueue(folder, max_size=settings.spool_max_size, max_age=settings.spool_max_age)

    try:
        queue = opened(settings.state_dir)
        if waiting := queue.requests:
            logger.info(
                "sending %s left over from the previous run first",
                counted(waiting, "request"),
                extra={"state_dir": str(settings.state_dir)},
            )
        return queue
    except StateInUseError as error:
        if not shared:
            raise
        logger.warning("%s; requests that the collector does not accept now are lost", error)
        return opened(None)


def open_store(settings: Settings, queries: Sequence[QueryDefinition]) -> ResultStore:
    """Return a store with the values of the previous run, if POLLER_STATE_DIR is set; raises ConfigError."""
    if settings.state_dir is None:
        return ResultStore(queries)
    make_folder(settings.state_dir)
    # The key contains no secret, so that a rotated password does not make it another database.
    libpq = [os.environ.get(f"PG{name}", "") for name in ("HOST", "HOSTADDR", "PORT", "DATABASE", "SERVICE")]
    state_file = StateFile(settings.state_dir, " ".join([settings.text_of("database_url"), *libpq]))
    return ResultStore(queries, state_file.load(queries, time.monotonic(), time.time()), state_file)


def open_replica(
    settings: Settings,
    admission: Admission,
    on_server_info: Sequence[Callable[[ServerInfo], None]] = (),
) -> Replica:
    """Prepare the connection that the daemon and every command use, without opening it."""
    command = settings.password_command
    return Replica(
        settings.conninfo,
        connect_timeout=settings.connect_timeout,
        limits=TransactionLimits(settings.lock_timeout, settings.max_result_size),
        password=password_from(command.reveal()) if command else None,
        admission=admission,
        on_server_info=on_server_info,
        tags=tags(settings.sql_comments),
    )


def own_meter(settings: Settings, exporter: MetricExporter | None) -> Meter:
    """Return the meter of the poller's own metrics, which does nothing unless they are exported."""
    return NoOpMeter("poller") if exporter is None or settings.self_metrics == "off" else exporter.meter


def open_cycle(
    settings: Settings,
    queries: Sequence[QueryDefinition],
    store: ResultStore,
    exporter: MetricExporter | None = None,
    *,
    daemon: bool = False,
    tracing: Tracing | None = None,
) -> PollCycle:
    """Prepare the polls of `queries` without opening a connection.

    A `daemon` also logs which server it polls, and logs all values if nothing is exported. Raises ConfigError
    if no database is named, or libpq rejects its name.
    """
    conninfo = settings.conninfo()
    if not is_conninfo(conninfo):
        where = settings.source("database_url").name
        raise ConfigError([invalid(where, "; ".join(misunderstood(conninfo)))])
    meter, tracing = own_meter(settings, exporter), tracing or Tracing()
    tracker = ServerTracker(longest_absence(queries), announce_first=daemon)
    register_replica_gauges(meter, tracker)
    breaker = CircuitBreaker(settings.max_duty_cycle, settings.max_active_backends)
    admission = Admission(
        settings.require_standby,
        settings.max_replay_lag,
        breaker.check,
        count_active=settings.max_active_backends is not None,
        strict=settings.strict,
        report_lag=settings.self_metrics != "off",
    )
    return PollCycle(
        open_replica(settings, admission, [tracker.record, tracing.note]),
        store,
        tracker=tracker,
        tracing=tracing,
        metrics=None if isinstance(meter, NoOpMeter) else PollMetrics(meter, tracing.context),
        breaker=breaker,
        log=PollLog(every_result=daemon and exporter is None, repeats=daemon, within=tracing.of),
    )


def tags(comments: str) -> Tags:
    """Return the function that makes the tags of a query's SQL comment, by POLLER_SQL_COMMENTS."""
    if comments == "off":
        return untagged
    if comments == "name":
        return tag_name
    return tag_name_and_span


class _Part(Protocol):
    delivery: RetrySender

    def shutdown(self, timeout: float) -> None: ...


class TelemetryExport:
    """Export of spans and log records; without either no SDK is imported."""

    def __init__(self, settings: Settings | None, exporter: MetricExporter | None = None) -> None:
        """Start the exports that `settings` enable; `exporter` receives the metrics about all exports.

        Raises ConfigError if a standard variable cannot be used, or if the package for HTTP is missing.
        """
        self._parts: list[_Part] = []
        self.tracing = Tracing()
        if settings is None:
            return
        own = exporter if settings.self_metrics != "off" else None
        if settings.traces_to is not None or settings.logs_to is not None:
            self._open(settings, own)
        if own is not None:
            from poller.telemetry import export_metrics

            export_metrics.register(own.meter, [own.delivery, *(part.delivery for part in self._parts)])

    def _open(self, settings: Settings, own: MetricExporter | None) -> None:
        from poller.otlp.exporter import resource

        meter_provider = own.meter_provider if own is not None else None
        described = resource(settings.service_name, settings.instance, version())
        if settings.traces_to is not None:
            from poller.telemetry.span_exporter import Spans

            kinds = {settings.source(name).kind for name in ("traces", "traces_endpoint")}
            spans = Spans(
                settings.traces_to,
                described,
                settings.export_timeout,
                requested=kinds != {"default"},
                meter_provider=meter_provider,
            )
            self._parts.append(spans)
            self.tracing = Tracing(spans.tracer)
        if settings.logs_to is not None:
            from poller.telemetry.log_exporter import LogRecords

            records = LogRecords(
                settings.logs_to, described, settings.export_timeout, meter_provider=meter_provider
            )
            self._parts.append(records)

    def shutdown(self, timeout: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Send the queues and end, within `timeout` seconds even if the collector hangs.

        Returns early as soon as `stopped` returns true.
        """
        endings = [
            threading.Thread(target=part.shutdown, args=[timeout], name="ending", daemon=True)
            for part in self._parts
        ]
        for ending in endings:
            ending.start()
        deadline = time.monotonic() + timeout + 0.2
        for ending in endings:
            while ending.is_alive() and not stopped() and (left := deadline - time.monotonic()) > 0:
                ending.join(min(left, 0.2))

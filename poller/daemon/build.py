"""Factories of connections, the exporter, the queue, the lock and the telemetry of a process."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poller.config.settings import Settings
from poller.daemon.telemetry_export import TelemetryExport
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, StateInUseError
from poller.model.secrets import read_secret
from poller.model.text import counted
from poller.postgres.admission import Admission
from poller.postgres.advisory_lock import AdvisoryLock, with_single_server
from poller.postgres.cancellation import CancelToken
from poller.postgres.conninfo import is_conninfo, misunderstood
from poller.postgres.password import password_from, password_in
from poller.postgres.replica import Replica
from poller.postgres.server_tracker import ServerInfo
from poller.postgres.sqlcomment import Tags, tag_name, untagged
from poller.postgres.transaction import TransactionLimits
from poller.telemetry.traces import tag_name_and_span

if TYPE_CHECKING:
    from poller.model.leader import LeaderLock, Leadership
    from poller.model.target import Target
    from poller.otlp.exporter import MetricExporter
    from poller.otlp.sending_queue import SendingQueue


logger = logging.getLogger(__name__)


@functools.cache
def version() -> str:
    """Return the installed version of this package."""
    return importlib.metadata.version("obscura-poller")


def open_telemetry(settings: Settings, exporter: MetricExporter | None = None) -> TelemetryExport:
    """Start the exports of spans and log records that the settings enable; raises ConfigError."""
    described = None
    if settings.traces_to is not None or settings.logs_to is not None:
        from poller.otlp.exporter import resource

        described = resource(settings.service_name, settings.instance, version())
    kinds = {settings.source(name).kind for name in ("traces", "traces_endpoint")}
    return TelemetryExport(
        described,
        timeout=settings.export_timeout,
        traces=settings.traces_to,
        requested=kinds != {"default"},
        logs=settings.logs_to,
        own=exporter if settings.own_metrics != "off" else None,
    )


def open_exporter(settings: Settings, *, periodic: bool, leadership: Leadership) -> MetricExporter | None:
    """Start to export; return None without an endpoint.

    The metrics of targets are exported only while this process leads. Without an endpoint (logs-only mode) no
    SDK is imported. Raises ConfigError if the endpoint's variables or the state folder cannot be used.
    """
    if settings.endpoint is None:
        return None
    import math

    from poller.otlp.exporter import MetricExporter, resource

    queue = open_queue(settings, shared=not periodic)
    return MetricExporter(
        settings.endpoint,
        resource(settings.service_name, settings.instance, version()),
        queue,
        interval=settings.export_interval if periodic else math.inf,
        timeout=settings.export_timeout,
        leadership=leadership,
    )


def open_lock(settings: Settings) -> LeaderLock | None:
    """Prepare the lock of the leader election; None without one. Raises ConfigError."""
    if settings.leader_election is None:
        return None
    # The processes of one shard elect one of them.
    suffix = f"-{settings.own_shard.index}" if settings.own_shard else ""
    if (lease := settings.lease_name) is not None:
        from poller.daemon.kubernetes_lease import KubernetesLease

        return KubernetesLease(f"{lease}{suffix}", settings.instance, settings.leader_ttl)
    file, url = settings.election_file, settings.leader_election
    text = url.reveal().strip()
    if not is_conninfo(text):
        raise ConfigError([invalid(settings.source("leader_election").name, "; ".join(misunderstood(text)))])
    with_single_server(text)

    def conninfo() -> str:
        return text if file is None else read_secret(file).strip()

    return AdvisoryLock(conninfo, f"{settings.service_name}{suffix}", settings.instance, settings.leader_ttl)


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


def open_replica(
    settings: Settings,
    target: Target,
    admission: Admission,
    on_server_info: Sequence[Callable[[ServerInfo], None]] = (),
    cancel_token: CancelToken | None = None,
) -> Replica:
    """Prepare the connection that the daemon and every command use, without opening it."""
    return Replica(
        target.conninfo,
        connect_timeout=target.connect_timeout,
        limits=TransactionLimits(target.lock_timeout, settings.max_result_size),
        password=_password_of(target),
        admission=admission,
        on_server_info=on_server_info,
        tags=tags(settings.sql_comments),
        database=target.database,
        cancel_token=cancel_token,
    )


def _password_of(target: Target) -> Callable[[], str] | None:
    if target.password_file is not None:
        return password_in(target.password_file)
    return password_from(target.password_command.reveal()) if target.password_command else None


def tags(comments: str) -> Tags:
    """Return the function that makes the tags of a query's SQL comment, by POLLER_SQL_COMMENTS."""
    if comments == "off":
        return untagged
    if comments == "name":
        return tag_name
    return tag_name_and_span

"""Command `doctor`: checks of the database, the role, the queries and the collector, with fixes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.options import ReportFormat, Targets, with_settings
from poller.config.settings import SETTINGS, Settings
from poller.daemon.signals import StopSignal
from poller.model.diagnostics import Diagnostic, failed
from poller.model.errors import PollError
from poller.model.shards import Shard
from poller.model.target import Target
from poller.model.text import counted
from poller.telemetry.logging import configure
from poller.terminal.diagnostics import checks_to_json, print_checks, print_target_checks
from poller.terminal.progress import Progress

if TYPE_CHECKING:
    from poller.cli.doctor_database import Examined
    from poller.postgres.server_tracker import ServerInfo


# Every setting is an option, except `strict`, which is a flag here.
@with_settings(*(name for name in SETTINGS if name != "strict"))
def doctor(
    settings: Settings,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Fail if the role may do more than read. [variable POLLER_STRICT]",
            show_default=False,
        ),
    ] = None,
    target: Targets = None,
    format: ReportFormat = "text",  # noqa: A002 - the option is called --format everywhere
) -> None:
    """Check the database, the role, every query and the collector, and suggest fixes.

    Connects as the daemon does, only reads, runs every query once and sends the collector an empty request.
    With POLLER_TARGETS it does so on every target, prints a line for each healthy one and the problems of the
    others, and also checks that the polls fit into the connections of each server. Exit code 0: no check
    failed; 1: a check failed; 2: the configuration is invalid.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.cli.database import admission_of
    from poller.cli.doctor_database import Examined, examine_database, unreached, with_list
    from poller.cli.doctor_election import examine_election
    from poller.cli.selection import discover, reader, select_targets
    from poller.cli.targets import for_each, require_targets
    from poller.config.load import open_configuration
    from poller.daemon.build import open_replica
    from poller.postgres.cancellation import CancelToken
    from poller.tools.doctor import collector

    configure(settings.log_format, settings.log_level)
    if settings.log_level != "debug":
        # Failures are reported as diagnostics, not as log records.
        logging.getLogger("poller").setLevel(logging.CRITICAL)
    require_targets(settings, target)
    configuration = open_configuration(settings)
    declared = configuration.targets
    if strict is not None:
        declared = tuple(replace(item, strict=strict) for item in declared)
    general = [Diagnostic("warning", "settings", warning) for warning in settings.warnings]
    queries = configuration.catalog.queries
    cancel_token = CancelToken()
    stop = StopSignal(cancel_token.cancel)
    read = reader(settings, cancel_token)
    selection = select_targets(settings, target, declared, read, settings.max_connections)
    targets = selection.targets
    alone = settings.targets is None
    with Progress(
        [query.name for query in queries] if alone else [item.name for item in targets]
    ) as progress:

        def examine(target: Target) -> Examined:
            server_infos: list[ServerInfo] = []
            replica = open_replica(
                settings, target, admission_of(target), [server_infos.append], cancel_token
            )
            due = [query for query in queries if target.runs(query)]
            discovery = selection.discoveries.get(target.name)
            try:
                if discovery is not None and (error := discovery.unreachable):
                    return unreached(settings, target, error)
                examined = examine_database(
                    target, replica, server_infos, due, settings, progress if alone else None
                )
                if target.databases is None or examined.error is not None:
                    return examined
                return with_list(examined, discovery or discover(target, replica))
            finally:
                replica.close()
                progress.done(target.name)

        def skip(target: Target, error: PollError) -> Examined:
            progress.done(target.name)
            message = f"not tried, because its server is unavailable: {error.message}"
            return Examined(target, [Diagnostic("error", "database", message)])

        examined = for_each(targets, settings.max_connections, examine, skip, _unavailable)
    if settings.own_shard:
        general.append(_examine_shard(settings.own_shard, configuration.targets))
    if stop.number is None and not alone:
        general += _examine_schedule(examined, settings)
    if stop.number is None:
        general += examine_election(settings)
        general.append(collector.examine(settings.endpoint, settings.export_timeout))
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    by_target = [
        [of_target.target.of_diagnostic(diagnostic) for diagnostic in of_target.diagnostics]
        for of_target in examined
    ]
    warnings, general = general[: len(settings.warnings)], general[len(settings.warnings) :]
    diagnostics = [*warnings, *(diagnostic for checks in by_target for diagnostic in checks), *general]
    if format == "json":
        sys.stdout.write(checks_to_json(diagnostics) + "\n")
    else:
        from poller.terminal.console import open_console

        if alone:
            print_checks(open_console(), diagnostics)
        else:
            print_target_checks(open_console(), by_target, [*warnings, *general])
    raise typer.Exit(1 if failed(diagnostics) else 0)


def _unavailable(examined: Examined) -> PollError | None:
    return examined.error if examined.error is not None and examined.error.server_wide else None


def _examine_shard(shard: Shard, targets: Sequence[Target]) -> Diagnostic:
    """Return the share of the targets, and of their servers, that the shard polls."""
    from poller.cli.targets import by_server
    from poller.daemon.shard_targets import ShardTargets

    own = ShardTargets(shard).select(targets)
    servers, all_servers = len(by_server(own)), len(by_server(targets))
    detail = (
        f"{shard} polls {len(own)} of {counted(len(targets), 'target')}, on {servers} of "
        f"{counted(all_servers, 'server')}"
    )
    facts = {
        "index": shard.index, "count": shard.count, "targets": len(own), "all_targets": len(targets),
        "servers": servers, "all_servers": all_servers,
    }  # fmt: skip
    return Diagnostic("ok", "shard", detail, facts=facts)


def _examine_schedule(examined: Sequence[Examined], settings: Settings) -> list[Diagnostic]:
    """Return the findings about the connections of the servers that were reached."""
    from poller.cli.targets import by_server
    from poller.tools.doctor.schedule import Load
    from poller.tools.doctor.schedule import examine as examine_schedule

    busy = {of_target.target.name: of_target.busy for of_target in examined if of_target.busy}
    servers = by_server([of_target.target for of_target in examined if of_target.busy])
    loads = {
        server: [Load(target, busy[target.name]) for target in targets] for server, targets in servers.items()
    }
    return list(examine_schedule(loads, settings.max_connections)) if loads else []

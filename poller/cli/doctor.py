"""Command `doctor`: checks of the database, the role, the queries and the collector, with fixes."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poller.cli.options import with_settings
from poller.config.settings import SETTINGS, Settings
from poller.daemon.signals import StopSignal
from poller.model.diagnostics import Diagnostic, failed
from poller.telemetry.logging import configure
from poller.terminal.diagnostics import checks_to_json, print_checks
from poller.terminal.progress import Progress

if TYPE_CHECKING:
    from poller.postgres.server_tracker import ServerInfo

Format = Literal["text", "json"]


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
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Format, typer.Option(help="Output: text for people, json for programs.")
    ] = "text",
) -> None:
    """Check the database, the role, every query and the collector, and suggest fixes.

    Connects as the daemon does, only reads, runs every query once and sends the collector an empty request.
    Exit code 0: no check failed; 1: a check failed; 2: the configuration is invalid.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.cli.database import admission_of
    from poller.cli.doctor_database import examine_database
    from poller.config.queries.load import open_catalog
    from poller.daemon.build import open_replica
    from poller.tools.doctor import collector

    configure(settings.log_format, settings.log_level)
    if settings.log_level != "debug":
        # Failures are reported as diagnostics, not as log records.
        logging.getLogger("poller").setLevel(logging.CRITICAL)
    catalog = open_catalog(settings)
    settings.conninfo()
    strict = settings.strict if strict is None else strict
    diagnostics = [Diagnostic("warning", "settings", warning) for warning in settings.warnings]
    server_infos: list[ServerInfo] = []
    replica = open_replica(settings, admission_of(settings, strict=strict), [server_infos.append])
    stop = StopSignal(replica.interrupt)
    with Progress([query.name for query in catalog.queries]) as progress:
        diagnostics += examine_database(replica, server_infos, catalog.queries, settings, progress)
    if stop.number is None:
        diagnostics.append(collector.examine(settings.endpoint, settings.export_timeout))
    replica.close()
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    if format == "json":
        sys.stdout.write(checks_to_json(diagnostics) + "\n")
    else:
        from poller.terminal.console import open_console

        print_checks(open_console(), diagnostics)
    raise typer.Exit(1 if failed(diagnostics) else 0)

"""Command `poll`: one poll of every query, with the values on stdout."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import typer

from poller.cli.completion import queries
from poller.cli.options import with_settings
from poller.config.settings import Settings
from poller.daemon.signals import StopSignal
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.printable import one_line
from poller.model.query import MetricDefinition
from poller.model.result import REFUSALS, PollResult
from poller.model.tick import ticks
from poller.polling.store import ResultStore
from poller.telemetry.logging import configure
from poller.terminal.progress import Progress

logger = logging.getLogger(__name__)

Format = Literal["table", "json", "prometheus", "otlp-json"]


@with_settings()
def poll(
    settings: Settings,
    query: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Poll only this query; * and ? match; repeatable.",
            autocompletion=queries,
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Format,
        typer.Option(
            help="Output: table for people, json for programs, prometheus and otlp-json for backends."
        ),
    ] = "table",
    push: Annotated[bool, typer.Option(help="Push the values to the OTLP endpoint as well.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List omitted rows on stderr.")] = False,
) -> None:
    """Poll every query once and print the values.

    Omitted rows are counted after the state, with the reason: `ok, 2 duplicate`.

    Exit code 0: success; 1: a query failed, all its rows were rejected (except NULLs with on_null: drop), the
    server was refused (its role, its lag, the role's privileges), or the push failed; 2: the configuration is
    invalid.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.config.queries.load import open_catalog
    from poller.daemon.build import TelemetryExport, open_cycle, open_exporter
    from poller.polling.report import refusals

    configure(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        logger.warning(warning)
    catalog = open_catalog(settings)
    chosen = catalog.select(query) if query else catalog.queries
    if push and settings.endpoint is None:
        raise ConfigError([invalid("--push", "needs an endpoint; set POLLER_OTLP_ENDPOINT")])
    settings.conninfo()  # before the SDK is imported, so that a missing database is reported at once
    store = ResultStore(catalog.queries)
    exporter = open_exporter(settings, store, periodic=False) if push else None
    telemetry = TelemetryExport(settings if push else None, exporter)
    cycle = open_cycle(settings, catalog.queries, store, exporter, tracing=telemetry.tracing)
    stop = StopSignal(cycle.source.interrupt)
    with Progress([query.name for query in chosen]) as progress:
        # As in the daemon: one tick, one snapshot, one budget for queries with equal group and interval.
        polled = cycle.run_ticks(ticks(chosen, settings.instance), progress.done)
    by_name = {result.query.name: result for result in polled}
    results = [by_name[query.name] for query in chosen]
    cycle.source.close()
    try:
        _print(format, results, catalog.metrics, settings)
        if verbose:
            sys.stderr.writelines(f"{one_line(line)}\n" for result in results for line in refusals(result))
    finally:  # the values are pushed even if stdout cannot be written
        # The first signal ends the wait, but not the first attempt to deliver the values.
        patience = settings.export_timeout
        delivered = exporter.shutdown(patience, stopped=stop.is_requested) if exporter else True
        telemetry.shutdown(patience, stop.is_requested)
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    failed = any(
        result.outcome == "failed"
        or result.all_refused
        or (result.skipped is not None and result.skipped.reason in REFUSALS)
        for result in results
    )
    raise typer.Exit(1 if failed or not delivered else 0)


def _print(
    form: Format, results: Sequence[PollResult], metrics: Mapping[str, MetricDefinition], settings: Settings
) -> None:
    from poller.polling.report import print_table, to_json

    samples = [sample for result in results for sample in result.samples]
    if form == "json":
        text = to_json(results, metrics) + "\n"
    elif form == "prometheus":
        from poller.model.prometheus import exposition

        text = exposition(metrics, samples)
    elif form == "otlp-json":
        text = _to_otlp_json(results, settings) + "\n"
    else:
        from poller.terminal.console import open_console

        print_table(open_console(), results, metrics)
        return
    sys.stdout.write(text)


def _to_otlp_json(results: Sequence[PollResult], settings: Settings) -> str:
    """Return one ExportMetricsServiceRequest on one line; each data point has the time of its snapshot.

    The Collector's file receiver reads it. Source: OpenTelemetry protocol specification, "JSON Protobuf
    Encoding" (64-bit integers are strings).
    """
    from google.protobuf.json_format import MessageToJson

    from poller.daemon.build import version
    from poller.otlp.exporter import resource
    from poller.otlp.request import message
    from poller.polling.instruments import CatalogInstruments, Frame

    # The variable disables the SDK's exports, but this output is printed.
    os.environ.pop("OTEL_SDK_DISABLED", None)
    described = resource(settings.service_name, settings.instance, version())
    metrics = [metric for result in results for metric in result.query.metrics]
    instruments = CatalogInstruments(
        lambda: Frame(metrics, results), described, version(), starts=False, snapshot_times=True
    )
    return MessageToJson(message(instruments.collect(), described, version()), indent=None)

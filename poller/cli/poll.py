"""Command `poll`: one poll of every query, with the values on stdout."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from poller.cli.completion import queries
from poller.cli.options import Targets, with_settings
from poller.config.settings import Settings
from poller.daemon.signals import StopSignal
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollError
from poller.model.printable import one_line
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.result import REFUSALS, PollResult, Sample
from poller.model.target import Target
from poller.model.tick import ticks
from poller.telemetry.logging import about, configure
from poller.terminal.progress import Progress

if TYPE_CHECKING:
    from poller.cli.selection import Selection

logger = logging.getLogger(__name__)

PollFormat = Literal["table", "json", "prometheus", "otlp-json"]


class Polled(NamedTuple):
    """The results of one target, in the order of the queries."""

    target: Target
    results: Sequence[PollResult]


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
    target: Targets = None,
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        PollFormat,
        typer.Option(
            help="Output: table for people, json for programs, prometheus and otlp-json for backends."
        ),
    ] = "table",
    push: Annotated[bool, typer.Option(help="Push the values to the OTLP endpoint as well.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List omitted rows on stderr.")] = False,
) -> None:
    """Poll every query once and print the values.

    With POLLER_TARGETS the queries run on every target, or on those of --target.

    Omitted rows are counted after the state, with the reason: `ok, 2 duplicate`.

    Exit code 0: success; 1: a query failed, all its rows were rejected (except NULLs with on_null: drop), the
    server was refused (its role, its lag, the role's privileges), or the push failed; 2: the configuration is
    invalid.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.cli.selection import reader, select_targets
    from poller.cli.targets import for_each, require_targets
    from poller.config.load import open_configuration
    from poller.daemon.target_factory import TargetFactory
    from poller.polling.report import rejection_lines
    from poller.postgres.cancellation import CancelToken
    from poller.telemetry.poll_log import PollLog

    configure(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        logger.warning(warning)
    require_targets(settings, target)
    configuration = open_configuration(settings)
    catalog = configuration.catalog
    chosen = catalog.select(query) if query else catalog.queries
    if push and settings.endpoint is None:
        raise ConfigError([invalid("--push", "needs an endpoint; set POLLER_OTLP_ENDPOINT")])
    cancel_token = CancelToken()
    stop = StopSignal(cancel_token.cancel)
    read = reader(settings, cancel_token)
    selection = select_targets(settings, target, configuration.targets, read, settings.max_connections)
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    if not selection.targets:
        typer.echo(f"shard {settings.own_shard} has no targets", err=True)
        raise typer.Exit
    due = _due(chosen, selection)
    factory = TargetFactory(settings, push=push, cancel_token=cancel_token)
    pollers = {
        target.name: factory.open(target, [query for query in catalog.queries if target.runs(query)])
        for target, _ in due
    }
    due_queries = {target.name: queries for target, queries in due}
    alone = len(due) == 1
    steps = [query.name for query in due[0][1]] if alone else list(pollers)
    with Progress(steps) as progress:

        def act(target: Target, error: PollError | None = None) -> Polled:
            """Poll a target; with `error`, its queries fail without a try."""
            poller, queries = pollers[target.name], due_queries[target.name]
            failed = selection.failed(target.name)
            if failed is not None:
                error = error or failed.unreachable
            with about(target.name):
                if failed is not None and not (queries and (error or failed.result.skipped)):
                    # Otherwise the record about the queries has the same reason.
                    PollLog(repeats=False).observe([failed.result])
                if not queries:
                    polled = []
                elif error is not None:
                    polled = poller.cycle.fail(queries, error)
                else:
                    # As in the daemon: one tick, one snapshot, one budget for queries with equal group and
                    # interval.
                    due_ticks = ticks(queries, target.name or settings.instance)
                    polled = poller.cycle.run_ticks(due_ticks, progress.done if alone else lambda _: None)
            poller.retire()
            progress.done(target.name)
            by_name = {result.query.name: result for result in polled}
            results = [by_name[query.name] for query in queries]
            return Polled(target, [failed.result, *results] if failed else results)

        polled = for_each([target for target, _ in due], settings.max_connections, act, act, _unavailable)
    results = [result for of_target in polled for result in of_target.results]
    try:
        _print(format, polled, catalog.metrics, settings)
        if verbose:
            for of_target in polled:
                prefix = f"{of_target.target.name}: " if of_target.target.name else ""
                lines = (line for result in of_target.results for line in rejection_lines(result))
                sys.stderr.writelines(f"{prefix}{one_line(line)}\n" for line in lines)
    finally:  # the values are pushed even if stdout cannot be written
        # The first signal ends the wait, but not the first attempt to deliver the values.
        patience = settings.export_timeout
        exporter = factory.exporter
        delivered = exporter.shutdown(patience, stopped=stop.is_requested) if exporter else True
        factory.telemetry.shutdown(patience, stop.is_requested)
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    failed = any(
        result.outcome == "failed"
        or result.all_rejected
        or (result.skipped is not None and result.skipped.reason in REFUSALS)
        for result in results
    )
    raise typer.Exit(1 if failed or not delivered else 0)


def _due(
    queries: Sequence[QueryDefinition], selection: Selection
) -> list[tuple[Target, list[QueryDefinition]]]:
    """Return the targets with the queries that run on them; reports targets without any on stderr.

    A server whose list cannot be read is among them. Raises ConfigError if no query runs on any of the
    targets.
    """
    from poller.model.text import list_names

    due = [(target, [query for query in queries if target.runs(query)]) for target in selection.targets]
    for name, discovery in selection.discoveries.items():
        if discovery.databases is not None and not discovery.databases.polled:
            message = "no database of the server is polled; check include and exclude of `databases`"
            typer.echo(f"{name}: {message}", err=True)
    idle = [target for target, chosen in due if not chosen]
    if names := [target.name for target in idle if target.databases is None]:
        them = "it" if len(names) == 1 else "them"
        typer.echo(one_line(f"{list_names(names)}: none of the queries runs on {them}"), err=True)
    due = [(target, chosen) for target, chosen in due if chosen or selection.failed(target.name)]
    if not due:
        message = "none of the queries runs on the selected targets; see the key `targets` of the queries"
        servers = [item.name for item in idle if item.databases and item.name not in selection.discoveries]
        if servers:
            message += f", and write --target '{servers[0]}/*' for the databases of {servers[0]}"
        raise ConfigError([invalid("--target", message)])
    return due


def _unavailable(polled: Polled) -> PollError | None:
    """Return the error if the target's server is unavailable."""
    errors = (result.error for result in polled.results if result.error is not None)
    return next((error for error in errors if error.unsent and error.server_wide), None)


def _print(
    form: PollFormat, polled: Sequence[Polled], metrics: Mapping[str, MetricDefinition], settings: Settings
) -> None:
    from poller.polling.report import print_table, to_json

    by_target = [(of_target.target.name, of_target.results) for of_target in polled]
    if form == "json":
        text = to_json(by_target, metrics) + "\n"
    elif form == "prometheus":
        from poller.model.prometheus import exposition

        text = exposition(metrics, [sample for of_target in polled for sample in _with_instance(of_target)])
    elif form == "otlp-json":
        text = _to_otlp_json(polled, settings) + "\n"
    else:
        from poller.terminal.console import open_console

        print_table(open_console(), by_target, metrics)
        return
    sys.stdout.write(text)


def _with_instance(polled: Polled) -> Iterator[Sample]:
    """Yield the samples of a target with the label that Prometheus derives from `service.instance.id`."""
    more = {"instance": polled.target.name} if polled.target.name else {}
    for result in polled.results:
        for sample in result.samples:
            # First in the output, and not overridden by an attribute of the same name.
            yield replace(sample, attributes={**more, **sample.attributes, **more}) if more else sample


def _to_otlp_json(polled: Sequence[Polled], settings: Settings) -> str:
    """Return one ExportMetricsServiceRequest on one line; each data point has the time of its snapshot.

    The Collector's file receiver reads it. Source: OpenTelemetry protocol specification, "JSON Protobuf
    Encoding" (64-bit integers are strings).
    """
    from google.protobuf.json_format import MessageToJson

    from poller.daemon.build import version
    from poller.daemon.metric_source import name_of_database, resource_attributes
    from poller.otlp.exporter import resource
    from poller.otlp.request import message
    from poller.polling.instruments import CatalogInstruments, Frame

    # The variable disables the SDK's exports, but this output is printed.
    os.environ.pop("OTEL_SDK_DISABLED", None)
    groups = []
    for target, results in polled:
        more = resource_attributes(target, name_of_database(target))
        described = resource(settings.service_name, target.name or settings.instance, version(), more)
        metrics = [metric for result in results for metric in result.query.metrics]
        if not metrics:
            continue  # a server whose list of databases could not be read
        instruments = CatalogInstruments(version(), starts=False, snapshot_times=True)
        groups.append((described, instruments.collect(Frame(metrics, results))))
    return MessageToJson(message(groups, version()), indent=None)

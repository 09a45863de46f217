"""Command `conform`: comparison of a server's OTLP output with the metric catalogue."""

from __future__ import annotations

import sys
from typing import Annotated, get_args

import typer

from poller.cli.options import (
    GrpcPort,
    HttpPort,
    ListenAddress,
    Listening,
    ReportFormat,
    port_in_use,
    seconds_to_listen,
    with_settings,
)
from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.config.settings import Settings
from poller.daemon.signals import StopSignal
from poller.events.catalog import GenerationName, declared
from poller.events.catalog import generation as known_generation
from poller.model.catalog import Defaults
from poller.model.diagnostics import failed, invalid
from poller.model.duration import format_duration
from poller.model.errors import ConfigError
from poller.terminal.diagnostics import checks_to_json, print_checks
from poller.tools.conform.conformance import ConformanceCheck, Require
from poller.tools.generate.metric_catalog import all_metrics


@with_settings("queries", "namespace", warn=True)
def conform(
    settings: Settings,
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Recorded OTLP/JSON, one object per line, or - for stdin (default: listen)."),
    ] = None,
    duration: Listening = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Number of requests to wait for.")] = None,
    host: ListenAddress = "127.0.0.1",
    grpc_port: GrpcPort = 4317,
    http_port: HttpPort = 4318,
    generation: Annotated[
        GenerationName, typer.Option(help="Names of the design document or v0.9.4.")
    ] = "document",
    require: Annotated[
        Require, typer.Option(help="Required metrics: those of releases, all or none.")
    ] = "implemented",
    service: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare only data with this service.name.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Skip a check, a subject or check:subject; repeatable."),
    ] = None,
    format: ReportFormat = "text",  # noqa: A002 - the option is called --format everywhere
) -> None:
    """Compare a server's OTLP output with the catalogue.

    Reports unknown and missing metrics, wrong types and units, counters that fall, undeclared attributes and
    values, impossible values, personal data in any signal, root spans without a request id, and log records
    without trace context. Exit code 0: no difference; 1: differences, or no data received; 2: invalid input.
    """
    seconds = seconds_to_listen(duration)
    if files and (duration or requests):
        raise ConfigError(
            [invalid("poller conform", "cannot combine files with --for or --requests; omit one")]
        )
    namespace = settings.namespace or known_generation(generation).namespace
    defaults = Defaults(settings.interval, settings.timeout, settings.max_series, namespace)
    metrics = all_metrics(
        load(resolve(settings.queries), defaults), declared(generation, settings.namespace or None)
    )
    examination = ConformanceCheck(
        metrics,
        units=known_generation(generation).units,
        require=require,
        service=service,
        other_generations=_other_generations(generation, settings.namespace or None),
    )
    if files:
        _read(files, examination)
    else:
        _listen(examination, host, grpc_port, http_port, seconds, requests)
    diagnostics = examination.diagnostics(ignore or ())
    if format == "json":
        sys.stdout.write(checks_to_json(diagnostics) + "\n")
    else:
        from poller.terminal.console import open_console

        print_checks(open_console(), diagnostics)
    raise typer.Exit(1 if failed(diagnostics) else 0)


def _other_generations(generation: GenerationName, namespace: str | None) -> dict[str, str]:
    """Return the metric names of the other generations, each with its generation."""
    return {
        metric.name: other
        for other in get_args(GenerationName)
        if other != generation
        for metric in declared(other, namespace).values()
    }


def _read(files: list[str], examination: ConformanceCheck) -> None:
    from poller.tools.conform.recording import read

    for path in files:
        for request in read(path):
            examination.take(request)


def _listen(
    examination: ConformanceCheck,
    host: str,
    grpc_port: int,
    http_port: int,
    seconds: float | None,
    requests: int | None,
) -> None:
    from poller.tools.conform.listening import LimitedReceiver

    try:
        listening = LimitedReceiver(
            examination.take, host=host, grpc_port=grpc_port, http_port=http_port, enough=requests
        )
    except OSError as error:
        raise port_in_use("poller conform", error) from None
    stop = StopSignal()
    until = [
        *([f"for {format_duration(seconds)}"] if seconds is not None else []),
        *([f"until request {requests}"] if requests is not None else []),
    ]
    receiver = listening.receiver
    typer.echo(
        f"listening: grpc {receiver.grpc_endpoint}, http {receiver.http_endpoint}, "
        f"{' or '.join(until) or 'until Ctrl-C'}",
        err=True,
    )
    listening.wait(seconds, stop.is_requested)

"""Command `catalog`: the complete metric catalogue, both the gauges of queries and the events."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from poller.cli.options import with_settings
from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.config.settings import Settings
from poller.events.catalog import GenerationName, declared
from poller.events.catalog import generation as known_generation
from poller.model.catalog import Defaults
from poller.tools.generate.metric_catalog import all_metrics


@with_settings("queries", "namespace", warn=True)
def catalog(
    settings: Settings,
    generation: Annotated[
        GenerationName, typer.Option(help="Names of the design document or v0.9.4.")
    ] = "document",
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Literal["markdown", "json", "weaver"],
        typer.Option(help="Output: a table, JSON, or a registry for OpenTelemetry Weaver."),
    ] = "markdown",
) -> None:
    """Print all metrics: the gauges that the queries feed, and the events that a server exports.

    `weaver` prints a file for a registry of OpenTelemetry Weaver, which generates code for servers in other
    languages.
    """
    namespace = settings.namespace or known_generation(generation).namespace
    defaults = Defaults(settings.interval, settings.timeout, settings.max_series, namespace)
    events = declared(generation, settings.namespace or None)
    metrics = all_metrics(load(resolve(settings.queries), defaults), events)
    if format == "json":
        from poller.tools.generate.metric_catalog import to_json

        typer.echo(to_json(metrics, generation))
    elif format == "weaver":
        from poller.tools.generate.weaver import to_weaver

        typer.echo(to_weaver(metrics), nl=False)
    else:
        from poller.tools.generate.metric_catalog import to_markdown

        typer.echo(to_markdown(metrics))

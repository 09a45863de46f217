"""Command `dashboard`: a Grafana dashboard for the query files and for the poller itself."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

import typer

from poller.cli.options import with_settings
from poller.config.queries.load import open_catalog
from poller.config.settings import Settings
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.text import install

Which = Literal["inventory", "poller"]


@with_settings("queries", "interval", "timeout", "max_series", "namespace", warn=True)
def dashboard(
    settings: Settings,
    which: Annotated[
        Which, typer.Argument(help="inventory: the metrics of the queries; poller: the poller itself.")
    ] = "inventory",
) -> None:
    """Write a Grafana dashboard (JSON, for import or provisioning) to stdout, without a database.

    Its PromQL uses the default metric names of Prometheus' OTLP receiver. Requires the
    extra `dashboard`. Exit code 2: the query files are invalid.
    """
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        raise ConfigError([invalid("poller dashboard", f"requires an extra: {install('dashboard')}")])
    catalog = open_catalog(settings)
    if which == "inventory":
        from poller.tools.generate.dashboard import inventory

        typer.echo(inventory(catalog.queries), nl=False)
    else:
        from poller.tools.generate.dashboard_poller import poller_dashboard

        typer.echo(poller_dashboard(), nl=False)

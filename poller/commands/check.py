"""Validate the query files without a database."""

from __future__ import annotations

from typing import Annotated

import typer

from poller.catalog import Defaults, load, named, resolve
from poller.commands.completion import folders
from poller.commands.options import with_settings
from poller.settings import Settings


@with_settings("queries", "interval", "timeout", "max_series", "namespace", warn=True)
def check(
    settings: Settings,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Query files and folders, shipped and extended too; by default those of POLLER_QUERIES.",
            autocompletion=folders,
        ),
    ] = None,
) -> None:
    """Validate every query file, without a database, and tell all problems at once.

    Each line is `file:line: path.to.key: what is wrong; what to write instead`. Exit code 0: all files are
    good; 2: there are problems.
    """
    defaults = Defaults(settings.interval, settings.timeout, settings.max_series, settings.namespace)
    catalog = load([named(file) for file in files] if files else resolve(settings.queries), defaults)
    count = len(catalog.metrics)
    typer.echo(f"{len(catalog.files)} files, {len(catalog.queries)} queries, {count} metrics: no problems")

"""Command `settings`: every effective setting with its source and its meaning."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Annotated, Literal

import typer

from poller.cli.options import with_settings
from poller.config.settings import SETTINGS, Settings
from poller.model.printable import one_line
from poller.telemetry import logging as logs

logger = logging.getLogger(__name__)

HEADINGS = ("setting", "value", "source", "meaning")


@with_settings()
def settings(
    settings: Settings,
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Literal["table", "json"], typer.Option(help="Output: a table for people, json for programs.")
    ] = "table",
) -> None:
    """Print every effective setting, its source and its meaning; secrets are masked."""
    logs.configure(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        logger.warning(warning)
    if format == "json":
        entries = [
            {
                "setting": name,
                "variables": setting.variables,
                "value": settings.text_of(name) or None,
                "source": str(settings.source(name)),
                "meaning": setting.meaning,
            }
            for name, setting in SETTINGS.items()
        ]
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        _draw(_rows(settings))
    else:
        rows = [HEADINGS, *_rows(settings)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
            typer.echo("  ".join([*cells, row[3]]))


def _rows(settings: Settings) -> list[tuple[str, str, str, str]]:
    return [
        (name, one_line(settings.text_of(name) or "-"), str(settings.source(name)), setting.meaning)
        for name, setting in SETTINGS.items()
    ]


def _draw(rows: list[tuple[str, str, str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from poller.terminal.console import open_console

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading == "setting")
    for name, value, source, meaning in rows:
        dim = "dim" if source == "default" else ""
        # As Text, so that no value is interpreted as markup.
        table.add_row(Text(name, "cyan"), Text(value, dim), Text(source, dim), Text(meaning))
    open_console(no_color=bool(os.environ.get("NO_COLOR")) or None).print(table)

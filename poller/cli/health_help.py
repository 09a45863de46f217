"""Declaration of the command `health` for help and shell completion."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer


def health_help(
    live: Annotated[bool, typer.Option("--live", help="The process is there and its loops go on.")] = False,
    ready: Annotated[bool, typer.Option("--ready", help="Alive, and every query was polled.")] = False,
    file: Annotated[str | None, typer.Option(help="Heartbeat to read.")] = None,
    max_age: Annotated[str, typer.Option(metavar="DURATION", help="Age from which it is too old.")] = "60s",
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Literal["text", "json"], typer.Option(help="A line, or all that is known.")
    ] = "text",
) -> None:
    """Tell whether the poller that runs here is alive, or ready."""
    del live, ready, file, max_age, format
    from poller.cli.health import main

    main(sys.argv[2:])

"""Declaration of the command `health` for help and shell completion."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from poller.daemon.health import MAX_AGE_SECONDS


def health_help(
    live: Annotated[bool, typer.Option("--live", help="The process and its loops are running.")] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Alive, and every query without a schedule was polled once.")
    ] = False,
    file: Annotated[str | None, typer.Option(help="Heartbeat file.")] = None,
    max_age: Annotated[
        str, typer.Option(metavar="DURATION", help="Maximum age of the heartbeat.")
    ] = f"{MAX_AGE_SECONDS:g}s",
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Literal["text", "json"], typer.Option(help="One line, or the complete heartbeat.")
    ] = "text",
) -> None:
    """Report whether the poller on this host is alive or ready."""
    del live, ready, file, max_age, format
    from poller.cli.health import main

    main(sys.argv[2:])

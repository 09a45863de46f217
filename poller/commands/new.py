"""Ask for a table, offer the usual aggregates of it, and write those that are wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.commands.completion import values
from poller.commands.options import DATABASE, FILES, with_settings
from poller.drafts.aggregates import KINDS
from poller.drafts.offers import DEFAULT_TOP
from poller.errors import ConfigError, PollError, Problem
from poller.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from poller.drafts.aggregates import Offer


@with_settings(*FILES, *DATABASE, warn=True)
def new(
    settings: Settings,
    table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="The table: public.users, or users.")
    ] = None,
    aggregate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help=f"{', '.join(KINDS)}; KIND=COLUMN where it is of one; repeatable.",
            autocompletion=values("aggregate", tuple(KINDS)),
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Series of a top list.")] = DEFAULT_TOP,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the query and its metric, where it is one.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the queries to this file, or make the file.")
    ] = None,
) -> None:
    """Write queries for a table: its count, counts by a column, ages, sums, sizes.

    On a terminal it asks for what no option says. The query file is on stdout, everything else on stderr.
    Nothing of the table is read: sizes and values are those of the last ANALYZE, costs the planner's. Exit
    code 0: written; 1: the database cannot be asked; 2: there is no such table or aggregate, a name is taken,
    or the configuration cannot be used.
    """
    # Not above: who completes a command line waits for what is loaded.
    from poller.commands.keep import declared, defined, keep, refuse_taken, warn_taken
    from poller.commands.starter import Starter
    from poller.commands.visit import visiting
    from poller.console import open_console, say
    from poller.drafts.write import to_file

    console = open_console(stderr=True)
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    with visiting(settings, asks=asks) as visit:
        try:
            chosen = Starter(visit, console, top, settings.max_series, asks=asks).choose(
                table, aggregate or []
            )
        except PollError as error:
            told = visit.refused(error) if error.kind == "unavailable" else error.message
            say(console, told, "red")
            raise typer.Exit(1) from None
    if name is not None:
        if len(chosen) > 1:
            raise ConfigError([Problem("--name", "is of one query; ask for one aggregate")])
        chosen = [_named(chosen[0], name)]
    queries = [declared(one.query, settings) for one in chosen]
    defined(queries, settings)
    if write is None and asks and not (table and aggregate):
        write = _asked_file(console, lambda path: refuse_taken(path, queries, settings))
    elif write is not None:
        refuse_taken(write, queries, settings)
    sys.stdout.write(to_file(*queries))
    sys.stdout.flush()
    for one in chosen:
        if one.look:
            say(console, f"look: {one.look}", "yellow")
    if write is not None:
        keep(write, queries, settings, console)
    else:
        warn_taken(queries, settings, console)


def _named(one: Offer, name: str) -> Offer:
    from poller.drafts.draft import word

    (metric,) = one.query["metrics"]
    return replace(one, query={**one.query, "name": name, "metrics": [{**metric, "name": word(name)}]})


def _asked_file(console: Console, refuse: Callable[[Path], None]) -> Path | None:
    """The file that is wanted, where there is one; what `refuse` raises ConfigError for is asked again."""
    from rich.prompt import Prompt

    from poller.console import say

    asked = "Append to which file (empty: print only)"
    while answer := Prompt.ask(asked, console=console, default="", show_default=False).strip():
        try:
            refuse(Path(answer))
        except ConfigError as error:
            for problem in error.problems:
                say(console, str(problem), "red")
        else:
            return Path(answer)
    return None

"""Command `new`: queries for the usual aggregates of a table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.completion import values
from poller.cli.options import DATABASE, FILES, TargetName, draft_settings, with_settings
from poller.config.settings import Settings
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollError
from poller.tools.draft.aggregates import KINDS
from poller.tools.draft.offers import DEFAULT_TOP

if TYPE_CHECKING:
    from rich.console import Console

    from poller.tools.draft.aggregates import Offer
    from poller.tools.draft.save import DraftSettings


@with_settings(*FILES, *DATABASE, warn=True)
def new(
    settings: Settings,
    table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Table, such as public.users or users.")
    ] = None,
    aggregate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help=f"{', '.join(KINDS)}; KIND=COLUMN if it needs a column; repeatable.",
            autocompletion=values("aggregate", tuple(KINDS)),
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Series in a top list.")] = DEFAULT_TOP,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the query and its metric, if there is only one."),
    ] = None,
    target: TargetName = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the queries to this file, or create it.")
    ] = None,
) -> None:
    """Write queries for a table: its count, counts by a column, ages, sums, sizes.

    On a terminal, it asks for everything that no option sets. The query file goes to stdout, everything else
    to stderr. It reads no rows of the table: sizes and values come from the last ANALYZE, costs from the
    planner. Exit code 0: written; 1: the database cannot be queried; 2: the table or aggregate does not
    exist, a name is in use, or the configuration is invalid.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.cli.database import database_session
    from poller.cli.new_query import AggregateSelector
    from poller.cli.targets import the_target
    from poller.terminal.console import open_console, say, warn
    from poller.tools.draft.save import append_all, declare, define, refuse_conflicts, warn_of_conflicts
    from poller.tools.draft.yaml_writer import to_file

    console = open_console(stderr=True)
    interactive = sys.stdin.isatty() and sys.stderr.isatty()
    with database_session(settings, the_target(settings, target), interactive=interactive) as session:
        try:
            chosen = AggregateSelector(
                session, console, top, settings.max_series, interactive=interactive
            ).select(table, aggregate or [])
        except PollError as error:
            message = session.explain(error) if error.kind == "unavailable" else error.message
            say(console, message, "red")
            raise typer.Exit(1) from None
    if name is not None:
        if len(chosen) > 1:
            raise ConfigError([invalid("--name", "needs a single query; choose one aggregate")])
        chosen = [_named(chosen[0], name)]
    drafting = draft_settings(settings)
    define([declare(offer.query, drafting) for offer in chosen], drafting)
    if write is None and interactive and not (table and aggregate):
        write, chosen = _ask_file(chosen, drafting, console)
    elif write is not None and interactive:
        chosen = _free(chosen, write, drafting, console)
    elif write is not None:
        refuse_conflicts(write, [declare(offer.query, drafting) for offer in chosen], drafting)
    queries = [declare(offer.query, drafting) for offer in chosen]
    sys.stdout.write(to_file(*queries))
    sys.stdout.flush()
    for offer in chosen:
        if offer.caution:
            warn(console, offer.caution)
    if write is not None:
        append_all(write, queries, drafting, console)
    else:
        warn_of_conflicts(queries, drafting, console)


def _named(offer: Offer, name: str) -> Offer:
    from poller.tools.draft.from_statement import name_part

    (metric,) = offer.query["metrics"]
    return replace(
        offer, query={**offer.query, "name": name, "metrics": [{**metric, "name": name_part(name)}]}
    )


def _ask_file(
    chosen: list[Offer], settings: DraftSettings, console: Console
) -> tuple[Path | None, list[Offer]]:
    """Ask for a file; return it, None to print only, and the queries with names that are free in it."""
    from rich.prompt import Prompt

    from poller.terminal.diagnostics import print_problems

    question = "Append to which file (empty: print only)"
    while answer := Prompt.ask(question, console=console, default="", show_default=False).strip():
        try:
            return Path(answer), _free(chosen, Path(answer), settings, console)
        except ConfigError as error:
            print_problems(console, error.problems)
    return None, chosen


def _free(chosen: list[Offer], path: Path, settings: DraftSettings, console: Console) -> list[Offer]:
    """Return the queries with names that are free in the file; asks again for each name in use.

    Raises ConfigError if the file itself cannot be used.
    """
    from rich.prompt import Prompt

    from poller.terminal.diagnostics import print_problems

    free: list[Offer] = []
    for offer in chosen:
        candidate = offer
        while True:
            try:
                _refuse_name(candidate, free, path, settings)
                break
            except ConfigError as error:
                if any(problem.where == "--write" for problem in error.problems):
                    raise
                print_problems(console, error.problems)
            name = Prompt.ask(f"New name for {candidate.query['name']}", console=console).strip()
            candidate = _named(offer, name)
        free.append(candidate)
    return free


def _refuse_name(offer: Offer, others: list[Offer], path: Path, settings: DraftSettings) -> None:
    from poller.tools.draft.save import declare, define, refuse_conflicts

    query = declare(offer.query, settings)
    define([query], settings)
    if any(other.query["name"] == query["name"] for other in others):
        raise ConfigError(
            [invalid("--name", f"{query['name']!r} is also the name of another new query; write another")]
        )
    refuse_conflicts(path, [query], settings)

"""Ask for a table, offer the usual aggregates of it, and write those that are wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.commands.keep import declared, defined, keep, refuse_taken
from poller.commands.options import DATABASE, FILES, with_settings
from poller.commands.visit import Visit, visiting
from poller.drafts.draft import word
from poller.drafts.menu import print_offers, print_tables
from poller.drafts.offers import DEFAULT_TOP, KINDS, Offer, UnknownAggregateError, offer, offers
from poller.drafts.tables import Table, TableColumn, columns_query, read_columns, read_tables, tables_query
from poller.drafts.write import to_file
from poller.errors import ConfigError, PollError, Problem
from poller.inspection.look import Inspection, inspecting
from poller.settings import Settings
from poller.words import near

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 30
"""Tables that a person is shown; any other can be named."""


@with_settings(*FILES, *DATABASE, warn=True)
def new(
    settings: Settings,
    table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="The table: public.users, or users.")
    ] = None,
    aggregate: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help=f"{', '.join(KINDS)}; KIND=COLUMN where it is of one; repeatable."),
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
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    with visiting(settings, asks=asks) as visit:
        try:
            chosen = _Starter(visit, console, top, asks=asks).choose(table, aggregate or [])
        except PollError as error:
            told = visit.refused(error) if error.kind == "unavailable" else error.message
            console.print(told, style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
    if name is not None:
        if len(chosen) > 1:
            raise ConfigError([Problem("--name", "is of one query; ask for one aggregate")])
        chosen = [_named(chosen[0], name)]
    queries = [declared(one.query, settings) for one in chosen]
    defined(queries, settings)
    if write is None and asks and not (table and aggregate):
        write = _asked_file(console)
    if write is not None:
        refuse_taken(write, queries, settings)
    sys.stdout.write(to_file(*queries))
    sys.stdout.flush()
    for one in chosen:
        if one.look:
            console.print(f"look: {one.look}", style="yellow", markup=False, soft_wrap=True)
    if write is not None:
        keep(write, queries, settings, console)


def _named(one: Offer, name: str) -> Offer:
    (metric,) = one.query["metrics"]
    return replace(one, query={**one.query, "name": name, "metrics": [{**metric, "name": word(name)}]})


class _Starter:
    """Finds out what is wanted: from the options, or from the person at the terminal."""

    def __init__(self, visit: Visit, console: Console, top: int, *, asks: bool) -> None:
        self._visit = visit
        self._console = console
        self._top = top
        self._asks = asks

    def choose(self, table: str | None, aggregates: Sequence[str]) -> list[Offer]:
        """The aggregates that are wanted; raises PollError, and ConfigError where there are none such."""
        if table is None and not self._asks:
            what = "is missing, and there is no terminal to ask on; write --table NAME --aggregate count"
            raise ConfigError([Problem("--table", what)])
        with self._looking() as inspection:
            tables = read_tables(inspection.value(tables_query()))
        found = _found(table, tables) if table is not None else self._asked_table(tables)
        with self._looking() as inspection:
            columns = read_columns(inspection.value(columns_query(found)))
        if aggregates:
            return _wanted(aggregates, found, columns, self._top)
        with self._looking() as inspection:
            priced = _priced(inspection, offers(found, columns, self._top))
        if not self._asks:
            keys = ", ".join(one.key for one, _ in priced)
            raise ConfigError([Problem("--aggregate", f"is missing; for {found.full} there are: {keys}")])
        return self._asked_offers(found, priced)

    @contextmanager
    def _looking(self) -> Iterator[Inspection]:
        """One short look: a person takes longer to answer than a transaction or a connection may be idle."""
        visit = self._visit
        with inspecting(visit.session, visit.waker, visit.lock_timeout) as inspection:
            yield inspection
        if self._asks:
            visit.session.hang_up()

    def _asked_table(self, tables: Sequence[Table]) -> Table:
        from rich.prompt import Prompt

        print_tables(self._console, tables[:_SHOWN], more=len(tables) - _SHOWN)
        if not tables:
            what = "there is none that the role may read; GRANT SELECT on one"
            raise ConfigError([Problem("--table", what)])
        while True:
            answer = Prompt.ask("Which table (number or name)", console=self._console).strip()
            if answer.isdecimal() and 0 < int(answer) <= len(tables):
                return tables[int(answer) - 1]
            try:
                return _found(answer, tables)
            except ConfigError as error:
                self._console.print(error.problems[0].what, style="red", markup=False)

    def _asked_offers(self, table: Table, priced: Sequence[tuple[Offer, float | None]]) -> list[Offer]:
        from rich.prompt import Prompt

        print_offers(self._console, table, priced)
        while True:
            answer = Prompt.ask("Which of them (numbers)", console=self._console, default="1")
            numbers = answer.replace(",", " ").split()
            if numbers and all(one.isdecimal() and 0 < int(one) <= len(priced) for one in numbers):
                return [priced[int(one) - 1][0] for one in dict.fromkeys(numbers)]
            self._console.print(f"write numbers from 1 to {len(priced)}, like 1 3", style="red")


def _found(name: str, tables: Sequence[Table]) -> Table:
    """The table that is meant; raises ConfigError."""
    matches = [table for table in tables if name in (table.full, table.name, table.quoted)]
    if len(matches) == 1:
        return matches[0]
    known = [table.full for table in tables]
    if matches:
        what = f"{name!r} is several; write one of {', '.join(table.full for table in matches)}"
    elif not name:
        what = "is empty; write a table's name"
    else:
        bare = {table.name: table.full for table in tables}
        meant = bare.get(near(name, bare) or "") or near(name, known)
        instead = f"; did you mean {meant!r}?" if meant else "; GRANT SELECT on it"
        what = f"{name!r} is no table that the role may read{instead}"
    raise ConfigError([Problem("--table", what)])


def _wanted(keys: Sequence[str], table: Table, columns: Mapping[str, TableColumn], top: int) -> list[Offer]:
    chosen, problems = [], []
    for key in dict.fromkeys(keys):
        try:
            chosen.append(offer(key, table, columns, top))
        except UnknownAggregateError as error:
            problems.append(Problem("--aggregate", str(error)))
    if problems:
        raise ConfigError(problems)
    return chosen


def _priced(inspection: Inspection, offered: Sequence[Offer]) -> list[tuple[Offer, float | None]]:
    """Those that the server accepts, with the planner's cost of each."""
    looked = inspection.statements([one.query["sql"] for one in offered])
    return [(one, what.cost) for one, what in zip(offered, looked, strict=True) if what.error is None]


def _asked_file(console: Console) -> Path | None:
    from rich.prompt import Prompt

    asked = "Append to which file (empty: print only)"
    answer = Prompt.ask(asked, console=console, default="", show_default=False)
    return Path(answer.strip()) if answer.strip() else None

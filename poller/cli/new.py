"""Command `new`: queries for the usual aggregates of a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.completion import values
from poller.cli.database import Visit
from poller.cli.options import DATABASE, FILES, with_settings
from poller.config.settings import Settings
from poller.model.errors import ConfigError, PollError, Problem
from poller.model.text import near
from poller.postgres.inspect import Inspection, inspecting
from poller.terminal.console import say
from poller.tools.draft.aggregates import KINDS, Offer, UnknownAggregateError
from poller.tools.draft.offers import DEFAULT_TOP, offer, offers
from poller.tools.draft.prompt import print_offers, print_tables
from poller.tools.draft.tables import (
    Table,
    TableColumn,
    columns_query,
    kinds_query,
    no_table,
    read_columns,
    read_tables,
    tables_query,
)

if TYPE_CHECKING:
    from rich.console import Console

    from poller.tools.draft.aggregates import Offer


_SHOWN = 30
"""Tables that a person is shown; any other can be named."""
_LISTED = 10
"""Tables that one line names."""


class Starter:
    """Finds it out by short looks at the server."""

    def __init__(self, visit: Visit, console: Console, top: int, most: int, *, asks: bool) -> None:
        self._visit = visit
        self._console = console
        self._top = top
        self._most = most
        self._asks = asks

    def choose(self, table: str | None, aggregates: Sequence[str]) -> list[Offer]:
        """The aggregates that are wanted; raises PollError, and ConfigError where there are none such."""
        if table is None and not self._asks:
            what = "is missing, and there is no terminal to ask on; write --table NAME --aggregate count"
            raise ConfigError([Problem("--table", what)])
        with self._looking() as inspection:
            tables = read_tables(inspection.value(tables_query()))
        found = self._found(table, tables) if table is not None else self._asked_table(tables)
        with self._looking() as inspection:
            columns = read_columns(inspection.value(columns_query(found)))
        if aggregates:
            return self._wanted(aggregates, found, columns)
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
                return self._found(answer, tables)
            except ConfigError as error:
                say(self._console, error.problems[0].what, "red")

    def _asked_offers(self, table: Table, priced: Sequence[tuple[Offer, float | None]]) -> list[Offer]:
        from rich.prompt import Prompt

        print_offers(self._console, table, priced)
        while True:
            answer = Prompt.ask("Which of them (numbers)", console=self._console, default="1")
            numbers = _picked(answer, [one.key for one, _ in priced])
            if numbers and all(0 < number <= len(priced) for number in numbers):
                return [priced[number - 1][0] for number in dict.fromkeys(numbers)]
            self._console.print(f"write numbers from 1 to {len(priced)}, or names, like 1 3", style="red")

    def _found(self, name: str, tables: Sequence[Table]) -> Table:
        """The table that is meant; raises ConfigError."""
        matches = [table for table in tables if name in (table.full, table.name, table.quoted)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            what = f"{name!r} is several; write one of {', '.join(table.full for table in matches)}"
        elif not name:
            what = "is empty; write a table's name"
        else:
            with self._looking() as inspection:
                other = no_table(inspection.value(kinds_query(name)), name)
            what = f"{name!r} {other or _no_such(name, tables)}"
        raise ConfigError([Problem("--table", what)])

    def _wanted(self, keys: Sequence[str], table: Table, columns: Mapping[str, TableColumn]) -> list[Offer]:
        chosen, problems = [], []
        for key in dict.fromkeys(keys):
            try:
                chosen.append(offer(key, table, columns, self._top, self._most))
            except UnknownAggregateError as error:
                problems.append(Problem("--aggregate", str(error)))
        if problems:
            raise ConfigError(problems)
        return chosen


def _picked(answer: str, keys: Sequence[str]) -> list[int]:
    """The numbers that were typed, and those of names; 0 for anything else."""
    parts = [part.strip() for part in answer.split(",")]
    # The name of a column may hold a blank.
    words = [word for part in parts for word in ([part] if part in keys else part.split())]
    numbers = {key: number for number, key in enumerate(keys, 1)}
    return [numbers.get(word) or (int(word) if word.isdecimal() else 0) for word in words]


def _no_such(name: str, tables: Sequence[Table]) -> str:
    bare = {table.name: table.full for table in tables}
    meant = bare.get(near(name, bare) or "") or near(name, [table.full for table in tables])
    if meant:
        return f"is no table that the role may read; did you mean {meant!r}?"
    listed = ", ".join(table.full for table in tables[:_LISTED]) or "none"
    more = f" and {len(tables) - _LISTED} more" if len(tables) > _LISTED else ""
    return f"does not exist; the role may read {listed}{more}"


def _priced(inspection: Inspection, offered: Sequence[Offer]) -> list[tuple[Offer, float | None]]:
    """Those that the server accepts, with the planner's cost of each."""
    looked = inspection.statements([one.query["sql"] for one in offered])
    return [(one, what.cost) for one, what in zip(offered, looked, strict=True) if what.error is None]


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
    from poller.cli.database import visiting
    from poller.terminal.console import open_console, say
    from poller.tools.draft.save import declared, defined, keep, refuse_taken, warn_taken
    from poller.tools.draft.yaml_writer import to_file

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
    defined([declared(one.query, settings) for one in chosen], settings)
    if write is None and asks and not (table and aggregate):
        write, chosen = _asked_file(chosen, settings, console)
    elif write is not None and asks:
        chosen = _free(chosen, write, settings, console)
    elif write is not None:
        refuse_taken(write, [declared(one.query, settings) for one in chosen], settings)
    queries = [declared(one.query, settings) for one in chosen]
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
    from poller.tools.draft.from_statement import word

    (metric,) = one.query["metrics"]
    return replace(one, query={**one.query, "name": name, "metrics": [{**metric, "name": word(name)}]})


def _asked_file(chosen: list[Offer], settings: Settings, console: Console) -> tuple[Path | None, list[Offer]]:
    """The file that is wanted, None to print only, and the queries under names that are free in it."""
    from rich.prompt import Prompt

    asked = "Append to which file (empty: print only)"
    while answer := Prompt.ask(asked, console=console, default="", show_default=False).strip():
        try:
            return Path(answer), _free(chosen, Path(answer), settings, console)
        except ConfigError as error:
            _print_problems(error, console)
    return None, chosen


def _free(chosen: list[Offer], path: Path, settings: Settings, console: Console) -> list[Offer]:
    """The queries under names that are free in the file; a name that is taken is asked for again.

    Raises ConfigError if the file itself cannot be used.
    """
    from rich.prompt import Prompt

    free: list[Offer] = []
    for one in chosen:
        offered = one
        while True:
            try:
                _refuse_name(offered, free, path, settings)
                break
            except ConfigError as error:
                if any(problem.where == "--write" for problem in error.problems):
                    raise
                _print_problems(error, console)
            name = Prompt.ask(f"Another name instead of {offered.query['name']}", console=console).strip()
            offered = _named(one, name)
        free.append(offered)
    return free


def _refuse_name(one: Offer, others: list[Offer], path: Path, settings: Settings) -> None:
    from poller.tools.draft.save import declared, defined, refuse_taken

    query = declared(one.query, settings)
    defined([query], settings)
    if any(other.query["name"] == query["name"] for other in others):
        raise ConfigError(
            [Problem("--name", f"{query['name']!r} is another of these queries; write another")]
        )
    refuse_taken(path, [query], settings)


def _print_problems(error: ConfigError, console: Console) -> None:
    from poller.terminal.console import say

    for problem in error.problems:
        say(console, str(problem), "red")

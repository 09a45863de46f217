"""Choice of a table and its aggregates for `new`, from options or from questions at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from poller.cli.database import DatabaseSession
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.text import near
from poller.postgres.inspect import Inspection, inspect
from poller.terminal.console import say
from poller.tools.draft.aggregates import Offer, UnknownAggregateError
from poller.tools.draft.offers import offer, offers
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

T = TypeVar("T")

_MAX_CHOICES = 30
"""Maximum tables in the list to choose from; others can be chosen by name."""
_MAX_NAMES = 10
"""Maximum tables that one message names."""


class AggregateSelector:
    """Choice of the table and its aggregates, with short transactions on the server."""

    def __init__(
        self, session: DatabaseSession, console: Console, top: int, most: int, *, interactive: bool
    ) -> None:
        self._session = session
        self._console = console
        self._top = top
        self._most = most
        self._interactive = interactive

    def select(self, table: str | None, aggregates: Sequence[str]) -> list[Offer]:
        """Return the chosen aggregates; raises PollError, and ConfigError if the choice is invalid."""
        if table is None and not self._interactive:
            problem = "is missing, and there is no terminal to ask; write --table NAME --aggregate count"
            raise ConfigError([invalid("--table", problem)])
        tables = read_tables(self._inspect(lambda inspection: inspection.value(tables_query())))
        chosen = self._find(table, tables) if table is not None else self._ask_table(tables)
        columns = read_columns(self._inspect(lambda inspection: inspection.value(columns_query(chosen))))
        if aggregates:
            return self._offers(aggregates, chosen, columns)
        priced = self._inspect(lambda inspection: _with_costs(inspection, offers(chosen, columns, self._top)))
        if not self._interactive:
            keys = ", ".join(offer.key for offer, _ in priced)
            raise ConfigError(
                [invalid("--aggregate", f"is missing; write one of these for {chosen.full}: {keys}")]
            )
        return self._ask_offers(chosen, priced)

    def _inspect(self, act: Callable[[Inspection], T]) -> T:
        """One short transaction: a question at the terminal takes longer than a connection may be idle."""
        replica = self._session.replica
        result = inspect(replica.opener, act)
        if self._interactive:
            replica.connection.close()
        return result

    def _ask_table(self, tables: Sequence[Table]) -> Table:
        from rich.prompt import Prompt

        print_tables(self._console, tables[:_MAX_CHOICES], more=len(tables) - _MAX_CHOICES)
        if not tables:
            problem = "the role may read no table; GRANT SELECT on one"
            raise ConfigError([invalid("--table", problem)])
        while True:
            answer = Prompt.ask("Which table (number or name)", console=self._console).strip()
            if answer.isdecimal() and 0 < int(answer) <= len(tables):
                return tables[int(answer) - 1]
            try:
                return self._find(answer, tables)
            except ConfigError as error:
                say(self._console, error.problems[0].message, "red")

    def _ask_offers(self, table: Table, priced: Sequence[tuple[Offer, float | None]]) -> list[Offer]:
        from rich.prompt import Prompt

        print_offers(self._console, table, priced)
        while True:
            answer = Prompt.ask("Which aggregates (numbers or names)", console=self._console, default="1")
            numbers = _picked(answer, [offer.key for offer, _ in priced])
            if numbers and all(0 < number <= len(priced) for number in numbers):
                return [priced[number - 1][0] for number in dict.fromkeys(numbers)]
            self._console.print(f"write numbers from 1 to {len(priced)} or names, such as 1 3", style="red")

    def _find(self, name: str, tables: Sequence[Table]) -> Table:
        """Return the table called `name`; raises ConfigError."""
        matches = [table for table in tables if name in (table.full, table.name, table.quoted)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            problem = f"{name!r} matches several; write one of {', '.join(table.full for table in matches)}"
        elif not name:
            problem = "is empty; write the name of a table"
        else:
            other = no_table(self._inspect(lambda inspection: inspection.value(kinds_query(name))), name)
            problem = f"{name!r} {other or _no_such(name, tables)}"
        raise ConfigError([invalid("--table", problem)])

    def _offers(self, keys: Sequence[str], table: Table, columns: Mapping[str, TableColumn]) -> list[Offer]:
        chosen, problems = [], []
        for key in dict.fromkeys(keys):
            try:
                chosen.append(offer(key, table, columns, self._top, self._most))
            except UnknownAggregateError as error:
                problems.append(invalid("--aggregate", str(error)))
        if problems:
            raise ConfigError(problems)
        return chosen


def _picked(answer: str, keys: Sequence[str]) -> list[int]:
    """Return the numbers in `answer`, with names replaced by their numbers; 0 for anything else."""
    parts = [part.strip() for part in answer.split(",")]
    # The name of a column may contain a blank.
    items = [item for part in parts for item in ([part] if part in keys else part.split())]
    numbers = {key: number for number, key in enumerate(keys, 1)}
    return [numbers.get(item) or (int(item) if item.isdecimal() else 0) for item in items]


def _no_such(name: str, tables: Sequence[Table]) -> str:
    bare = {table.name: table.full for table in tables}
    similar = bare.get(near(name, bare) or "") or near(name, [table.full for table in tables])
    if similar:
        return f"is not a table that the role may read; did you mean {similar!r}?"
    listed = ", ".join(table.full for table in tables[:_MAX_NAMES]) or "none"
    more = f" and {len(tables) - _MAX_NAMES} more" if len(tables) > _MAX_NAMES else ""
    return f"does not exist; the role may read {listed}{more}"


def _with_costs(inspection: Inspection, offered: Sequence[Offer]) -> list[tuple[Offer, float | None]]:
    """Return the offers that the server accepts, each with its planner cost."""
    statements = inspection.statements([offer.query["sql"] for offer in offered])
    return [
        (offer, inspected.cost)
        for offer, inspected in zip(offered, statements, strict=True)
        if inspected.error is None
    ]

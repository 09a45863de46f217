"""Numbered lists of tables and of their aggregates, for the interactive prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poller.model.printable import one_line
from poller.terminal.console import say
from poller.tools.draft.aggregates import Offer
from poller.tools.draft.tables import Table

if TYPE_CHECKING:
    from rich.console import Console


def print_tables(console: Console, tables: Sequence[Table], *, more: int) -> None:
    """Print a numbered line for each table, and the number of omitted tables, `more`."""
    from rich.filesize import decimal
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "TABLE", "ROWS (ESTIMATE)", "SIZE (ESTIMATE)"):
        drawn.add_column(heading, justify="left" if heading == "TABLE" else "right", overflow="fold")
    for number, table in enumerate(tables, 1):
        rows = "not analysed" if table.rows is None else f"{table.rows:,.0f}"
        drawn.add_row(str(number), Text(one_line(table.full)), rows, decimal(int(table.bytes)))
    console.print(drawn)
    if more > 0:
        console.print(f"... and {more} smaller tables")


def print_offers(console: Console, table: Table, priced: Sequence[tuple[Offer, float | None]]) -> None:
    """Print a numbered line for each aggregate, with the planner's cost."""
    from rich.table import Table as Drawn
    from rich.text import Text

    rows = "not analysed" if table.rows is None else f"about {table.rows:,.0f} rows"
    console.print()
    say(console, f"{table.full}: {rows}", "bold")
    drawn = Drawn(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "AGGREGATE", "DESCRIPTION", "COST"):
        right = heading in ("", "COST")
        drawn.add_column(heading, justify="right" if right else "left", overflow="fold")
    for number, (offer, cost) in enumerate(priced, 1):
        price = "-" if cost is None else f"{cost:,.0f}"
        drawn.add_row(str(number), Text(one_line(offer.key)), Text(one_line(offer.means)), price)
    console.print(drawn)

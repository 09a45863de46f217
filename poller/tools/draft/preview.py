"""Preview of a drafted query: rows, metrics and warnings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from poller.model.printable import one_line
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.rows import Rows
from poller.polling.report import rejection_lines
from poller.polling.report import to_json as poll_to_json
from poller.postgres.inspect import Inspected
from poller.postgres.inspect_relations import Type
from poller.terminal.console import warn
from poller.tools.draft.from_statement import Draft

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MAX_ROWS = 20
"""Maximum number of result rows in the preview."""
_UNLIMITED = 100_000


def print_preview(
    console: Console,
    result: PollResult,
    rows: Rows,
    inspected: Inspected,
    drafted: Draft,
    types: Mapping[int, Type],
) -> None:
    """Print the rows, one line per metric, and the warnings."""
    _print(console, _rows(rows, types))
    if (more := len(rows.values) - MAX_ROWS + rows.beyond) > 0:
        console.print(f"... and {more} more rows", markup=False)
    cost = "" if inspected.cost is None else f", planner's cost {inspected.cost:,.0f}"
    count = len(rows.values) + rows.beyond
    console.print(
        f"{count} row{'' if count == 1 else 's'} in {_format_duration(result.duration)}{cost}\n", markup=False
    )
    _print(console, _metrics(drafted, result))
    for doubt in [*drafted.doubts, *rejection_lines(result)]:
        warn(console, doubt)
    console.print()


def to_json(
    result: PollResult,
    query: QueryDefinition,
    rows: Rows,
    inspected: Inspected,
    drafted: Draft,
    types: Mapping[int, Type],
) -> str:
    """Return one object: the query in a query file's keys, columns, rows as texts, cost, and the poll."""
    metrics = {metric.name: metric for metric in query.metrics}
    document = {
        "query": drafted.query,
        "columns": [{"name": column.name, "type": _type(types, column.oid)} for column in inspected.columns],
        "rows": [[_text(raw) for raw in row] for row in rows.values],
        "rows_beyond": rows.beyond,
        "cost": inspected.cost,
        "doubts": list(drafted.doubts),
        "poll": json.loads(poll_to_json([("", [result])], metrics))["queries"][0],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)


def _print(console: Console, table: Table) -> None:
    width = console.width
    if not console.is_terminal:
        console.width = _UNLIMITED  # in a pipe, each row is one line
    console.print(table)
    console.width = width


def _rows(rows: Rows, types: Mapping[int, Type]) -> Table:
    from rich.text import Text

    table = _table()
    for column in rows.columns:
        kind = types.get(column.oid)
        right = kind is not None and kind.category == "N"
        heading = Text.assemble(one_line(column.name), (one_line(f" {_type(types, column.oid)}"), "dim"))
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows.values[:MAX_ROWS]:
        table.add_row(*(Text("NULL", "dim") if raw is None else Text(_to_line(raw)) for raw in row))
    return table


def _metrics(drafted: Draft, result: PollResult) -> Table:
    from rich.text import Text

    table = _table()
    for heading in ("METRIC", "UNIT", "VALUE", "ATTRIBUTES", "SERIES"):
        table.add_column(heading, justify="right" if heading == "SERIES" else "left", overflow="fold")
    exported = [metric.name for metric in result.query.metrics]
    for name, metric in zip(exported, drafted.query["metrics"], strict=True):
        count = sum(sample.metric == name for sample in result.samples)
        attributes = ", ".join(metric.get("attribute_columns", [])) or "-"
        cells = (name, metric["unit"], metric["value_column"], attributes, str(count))
        table.add_row(*map(Text, map(one_line, cells)))
    return table


def _type(types: Mapping[int, Type], oid: int) -> str:
    return types[oid].name if oid in types else f"type {oid}"


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", errors="replace")


def _to_line(raw: bytes) -> str:
    return one_line(raw[:400].decode("utf-8", errors="replace"))


def _format_duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"

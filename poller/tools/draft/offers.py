"""Selection of a table's aggregates, by its column statistics or by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from poller.model.text import did_you_mean
from poller.model.units import guessed_unit
from poller.tools.draft import aggregates
from poller.tools.draft.aggregates import KINDS, Offer, UnknownAggregateError
from poller.tools.draft.from_statement import MAX_LISTED_VALUES
from poller.tools.draft.tables import Table, TableColumn

TABLE_AGGREGATES = {"count", "count-estimate", "size"}
"""Aggregates without a column."""
DEFAULT_TOP = 10
DEFAULT_MOST = 1000
"""Default of `max_series`, the maximum number of series of one query."""

_TABLE_OFFERS: dict[str, Callable[[Table], Offer]] = {
    "count": aggregates.count,
    "count-estimate": aggregates.count_estimate,
    "size": aggregates.size,
}
_COLUMN_OFFERS: dict[str, Callable[[Table, TableColumn], Offer]] = {
    "newest-age": aggregates.newest_age,
    "oldest-age": aggregates.oldest_age,
    "sum": aggregates.total,
}


def offers(table: Table, columns: Mapping[str, TableColumn], top: int = DEFAULT_TOP) -> list[Offer]:
    """Return the aggregates that suit the columns, according to their types, names and statistics."""
    return [offer(key, table, columns, top) for key in _keys(columns)]


def offer(
    key: str,
    table: Table,
    columns: Mapping[str, TableColumn],
    top: int = DEFAULT_TOP,
    most: int = DEFAULT_MOST,
) -> Offer:
    """Return the aggregate `kind` or `kind=column`; `top` is the length of a top list.

    More than `most` series cause a warning. Raises UnknownAggregateError if the aggregate does not exist, or
    not for this column.
    """
    kind, _, name = key.partition("=")
    if kind not in KINDS:
        alike = [repr(candidate) for candidate in KINDS if kind in candidate.split("-")]
        hint = f"; did you mean {' or '.join(alike)}?" if alike else did_you_mean(kind, KINDS)
        raise UnknownAggregateError(
            f"{kind!r} is not an aggregate{hint or ';'} write one of {', '.join(KINDS)}"
        )
    if kind in TABLE_AGGREGATES:
        if name:
            raise UnknownAggregateError(f"{kind!r} applies to the whole table; write {kind}")
        return _TABLE_OFFERS[kind](table)
    if not name:
        raise UnknownAggregateError(f"{kind!r} needs a column; write {kind}=COLUMN")
    column = columns.get(name)
    if column is None:
        raise UnknownAggregateError(
            f"{table.full} has no readable column {name!r}{did_you_mean(name, columns) or ';'} "
            f"write one of {', '.join(columns)}"
        )
    if kind == "top":
        return aggregates.top(table, column, top)
    if kind == "count-by":
        return aggregates.count_by(table, column, most)
    return _COLUMN_OFFERS[kind](table, column)


def _keys(columns: Mapping[str, TableColumn]) -> Iterator[str]:
    yield from ("count", "count-estimate")
    few = [column.name for column in columns.values() if _has_few_values(column)]
    yield from (f"count-by={name}" for name in few)
    yield from (
        f"top={column.name}"
        for column in columns.values()
        if column.category == "S" and column.name not in few and _repeats(column)
    )
    past = [
        column.name
        for column in columns.values()
        if aggregates.is_moment(column) and not aggregates.lies_ahead(column)
    ]
    yield from (f"{kind}={name}" for kind in ("newest-age", "oldest-age") for name in past)
    yield from (f"sum={column.name}" for column in columns.values() if _is_amount(column))
    yield "size"


def _has_few_values(column: TableColumn) -> bool:
    if column.labels or column.category == "B":
        return len(column.labels) <= MAX_LISTED_VALUES
    few = column.distinct is not None and 1 < column.distinct <= MAX_LISTED_VALUES
    return few and (column.category == "S" or column.kind in ("smallint", "integer"))


def _repeats(column: TableColumn) -> bool:
    """Return whether several rows have the same value, according to the statistics."""
    return column.distinct is not None and (column.distinct > 1 or -0.5 < column.distinct < 0)


def _is_amount(column: TableColumn) -> bool:
    """Return whether a sum makes sense: of a quantity, according to the name, or of the lengths of bytes."""
    if column.kind == "bytea":
        return True
    return column.category == "N" and guessed_unit(column.name, "row") != "{row}"

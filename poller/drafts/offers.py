"""Offer the usual aggregates of a table: counts, ages, sums and sizes, each as a query to keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from poller.drafts.draft import MOST_CLOSED, sentence, word
from poller.drafts.tables import Table, TableColumn
from poller.inspection.relations import literal
from poller.units import guessed_unit
from poller.words import did_you_mean

KINDS: dict[str, str] = {
    "count": "every row, counted",
    "count-estimate": "every row, as the last ANALYZE estimated them: it costs nothing",
    "count-by": "rows by a column with few values",
    "top": "rows by a column with many values: the first, and the others in one series",
    "newest-age": "time since the newest row",
    "sum": "the sum of a column",
    "size": "the table's size on disk, with its indexes",
}
"""What can be asked for, and what it means."""
OF_THE_TABLE = {"count", "count-estimate", "size"}
"""Those that need no column."""
DEFAULT_TOP = 10


class UnknownAggregateError(Exception):
    """There is no such aggregate of this table; its argument says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One aggregate of one table."""

    key: str
    """As it is asked for: `count-by=state`."""
    means: str
    query: dict[str, Any]
    look: str | None = None
    """What its reader should make sure of."""


def offers(table: Table, columns: Mapping[str, TableColumn], top: int = DEFAULT_TOP) -> list[Offer]:
    """The aggregates that make sense by what is known of the columns."""
    return [offer(key, table, columns, top) for key in _keys(columns)]


def offer(key: str, table: Table, columns: Mapping[str, TableColumn], top: int = DEFAULT_TOP) -> Offer:
    """The aggregate that is asked for as `kind` or `kind=column`; `top` is the length of a top list.

    Raises UnknownAggregateError where there is none, or it cannot be made of that column.
    """
    kind, _, name = key.partition("=")
    if kind not in KINDS:
        raise UnknownAggregateError(
            f"{kind!r} is no aggregate{did_you_mean(kind, KINDS) or ';'} there are: {', '.join(KINDS)}"
        )
    if kind in OF_THE_TABLE:
        if name:
            raise UnknownAggregateError(f"{kind!r} is of the whole table; write {kind}")
        return _OF_TABLE[kind](table)
    if not name:
        raise UnknownAggregateError(f"{kind!r} needs a column; write {kind}=COLUMN")
    column = columns.get(name)
    if column is None:
        raise UnknownAggregateError(
            f"{table.full} has no column {name!r} that may be read{did_you_mean(name, columns) or ';'} "
            f"there are: {', '.join(columns)}"
        )
    if kind == "top":
        return _top(table, column, top)
    return _OF_COLUMN[kind](table, column)


def _keys(columns: Mapping[str, TableColumn]) -> Iterator[str]:
    yield from ("count", "count-estimate")
    few = [column.name for column in columns.values() if _has_few_values(column)]
    yield from (f"count-by={name}" for name in few)
    yield from (
        f"top={column.name}"
        for column in columns.values()
        if column.category == "S" and column.name not in few and _repeats(column)
    )
    yield from (f"newest-age={column.name}" for column in columns.values() if _is_moment(column))
    yield from (f"sum={column.name}" for column in columns.values() if _is_amount(column))
    yield "size"


def _has_few_values(column: TableColumn) -> bool:
    if column.labels or column.category == "B":
        return len(column.labels) <= MOST_CLOSED
    known = column.distinct is not None and 1 < column.distinct <= MOST_CLOSED
    return known and (column.category == "S" or column.kind in ("smallint", "integer"))


def _repeats(column: TableColumn) -> bool:
    """Whether a value stands in several rows, as far as is known."""
    return column.distinct is not None and (column.distinct > 1 or -0.5 < column.distinct < 0)


def _is_moment(column: TableColumn) -> bool:
    return column.kind == "timestamp with time zone"


def _is_amount(column: TableColumn) -> bool:
    """A number that may be added up, by its name or its kind; or bytes, which have a length."""
    if column.kind == "bytea":
        return True
    return column.category == "N" and guessed_unit(column.name, "row") != "{row}"


def _count(table: Table) -> Offer:
    query = _query(table, "count", f"SELECT count(*) AS rows FROM {table.quoted}", "rows", unit=_unit(table))
    return Offer("count", KINDS["count"], query)


def _count_estimate(table: Table) -> Offer:
    if table.partitioned:
        sql = (
            "SELECT CASE WHEN min(reltuples) >= 0 THEN sum(reltuples)::bigint END AS rows "
            f"FROM pg_partition_tree({literal(table.quoted)}) JOIN pg_class ON oid = relid WHERE isleaf"
        )
    else:
        sql = (
            "SELECT nullif(reltuples, -1)::bigint AS rows FROM pg_class "
            f"WHERE oid = {literal(table.quoted)}::regclass"
        )
    told = f"Rows of {table.full}, as the last ANALYZE estimated them."
    query = _query(table, "estimated_count", sql, "rows", unit=_unit(table), description=told)
    return Offer("count-estimate", KINDS["count-estimate"], query)


def _size(table: Table) -> Offer:
    name = literal(table.quoted)
    sql = (
        f"SELECT sum(pg_total_relation_size(relid)) AS bytes FROM pg_partition_tree({name})"
        if table.partitioned
        else f"SELECT pg_total_relation_size({name}) AS bytes"
    )
    told = f"Size of {table.full} on disk, with its indexes."
    query = _query(table, "disk_bytes", sql, "bytes", unit="By", description=told)
    return Offer("size", KINDS["size"], query)


def _count_by(table: Table, column: TableColumn) -> Offer:
    attribute, selected = _attribute(column)
    sql = f"SELECT {selected}, count(*) AS rows FROM {table.quoted} GROUP BY {column.quoted}"
    query = _query(table, f"by_{attribute}", sql, "rows", unit=_unit(table), by=attribute)
    values = column.all_values
    look = None
    if values and (column.not_null or (column.distinct is not None and not column.nulls)):
        query["metrics"][0]["attribute_values"] = {attribute: list(values)}
        if not column.not_null:
            look = f"rows whose {column.name} is NULL are refused; if there are any, drop attribute_values"
        if not column.labels and column.category != "B":
            look = f"other values of {column.name} than those listed are refused; list all there can be"
    return Offer(f"count-by={column.name}", f"{KINDS['count-by']}: {_told(column)}", query, look)


def _top(table: Table, column: TableColumn, most: int) -> Offer:
    attribute, selected = _attribute(column)
    sql = (
        f"SELECT {selected}, count(*) AS rows FROM {table.quoted} GROUP BY {column.quoted} "
        f"ORDER BY rows DESC, {column.quoted}"
    )
    query = _query(table, f"by_{attribute}", sql, "rows", unit=_unit(table), by=attribute)
    query = {**query, "max_series": most, "overflow": "other", "metrics": query["metrics"]}
    order = ("name", "sql", "max_series", "overflow", "metrics")
    means = f"the {most} most frequent of {column.name}, and `other`"
    return Offer(f"top={column.name}", means, {key: query[key] for key in order})


def _newest_age(table: Table, column: TableColumn) -> Offer:
    if not _is_moment(column):
        what = f"{column.name!r} is {column.kind}; the age of a row needs a timestamp with time zone"
        raise UnknownAggregateError(what)
    sql = f"SELECT extract(epoch FROM now() - max({column.quoted})) AS age FROM {table.quoted}"
    told = f"Time since the newest {column.name} in {table.full}."
    query = _query(table, f"newest_{word(column.name)}_age", sql, "age", unit="s", description=told)
    return Offer(f"newest-age={column.name}", f"time since the newest {column.name}", query)


def _sum(table: Table, column: TableColumn) -> Offer:
    if column.kind == "bytea":
        value, unit, last = f"octet_length({column.quoted})", "By", f"{word(column.name)}_bytes"
    elif column.category == "N":
        value, unit, last = column.quoted, guessed_unit(column.name, column.name), word(column.name)
    else:
        raise UnknownAggregateError(f"{column.name!r} is {column.kind}, which has no sum; name a number")
    total = f"coalesce(sum({value}), 0)"
    if not column.not_null:
        # sum() leaves out what is NULL without a word, and what remains would look like a total.
        total = f"CASE WHEN count(*) = count({column.quoted}) THEN {total} END"
    sql = f"SELECT {total} AS total FROM {table.quoted}"
    told = f"Sum of {column.name} over all rows of {table.full}."
    query = _query(table, last, sql, "total", unit=unit, description=told)
    look = None if column.not_null else f"there is no total while any {column.name} is NULL"
    return Offer(f"sum={column.name}", f"the sum of {column.name}", query, look)


_OF_TABLE: dict[str, Callable[[Table], Offer]] = {
    "count": _count,
    "count-estimate": _count_estimate,
    "size": _size,
}
_OF_COLUMN: dict[str, Callable[[Table, TableColumn], Offer]] = {
    "count-by": _count_by,
    "newest-age": _newest_age,
    "sum": _sum,
}


def _query(
    table: Table,
    last: str,
    sql: str,
    value: str,
    *,
    unit: str,
    description: str | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    name = f"{word(table.name) or 'table'}_{last}"
    metric: dict[str, Any] = {
        "name": name,
        "description": description or sentence(name),
        "unit": unit,
        "value_column": value,
    }
    if by is not None:
        metric["attribute_columns"] = [by]
    return {"name": name[:63].rstrip("_"), "sql": sql, "metrics": [metric]}


def _attribute(column: TableColumn) -> tuple[str, str]:
    """The column as an attribute's name, and how it is selected under that name."""
    name = (
        column.name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", column.name) else word(column.name) or "value"
    )
    plain = name == column.name
    return name, column.quoted if plain else f"{column.quoted} AS {name}"


def _unit(table: Table) -> str:
    return guessed_unit("", word(table.name))


def _told(column: TableColumn) -> str:
    values = column.all_values
    shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
    return f"{column.name} ({shown})" if values else column.name

"""Query drafts for each aggregate of a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from poller.model.rows import Column
from poller.model.units import guessed_unit
from poller.postgres.inspect_relations import Type
from poller.postgres.sql_text import literal
from poller.tools.check.cardinality import many_values
from poller.tools.draft.from_statement import name_part, sentence
from poller.tools.draft.tables import Table, TableColumn

KINDS: dict[str, str] = {
    "count": "every row, counted",
    "count-estimate": "every row, as the last ANALYZE estimated them: none is read",
    "count-by": "rows by a column with few values",
    "top": "rows by a column with many values: the first, and the others in one series",
    "newest-age": "time since the newest row",
    "oldest-age": "time since the oldest row, as of a queue",
    "sum": "the sum of a column",
    "size": "the table's size on disk, with its indexes",
}
"""What can be asked for, and what it means."""
_AHEAD = re.compile(r"(^|_)(expir\w*|until|due|deadline|scheduled|next|not_after|valid_to)(_|$)")
"""Names of times that are mostly still to come."""


class UnknownAggregateError(Exception):
    """There is no such aggregate of this table; its argument says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One aggregate of one table."""

    key: str
    """As it is asked for: `count-by=state`."""
    means: str
    query: dict[str, Any]
    caution: str | None = None
    """What its reader should make sure of."""


def count(table: Table) -> Offer:
    """Every row."""
    query = _query(table, "count", f"SELECT count(*) AS rows FROM {table.quoted}", "rows", unit=_unit(table))
    return Offer("count", KINDS["count"], query)


def count_estimate(table: Table) -> Offer:
    """Every row, by the statistics."""
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


def size(table: Table) -> Offer:
    """Bytes on disk."""
    name = literal(table.quoted)
    sql = (
        f"SELECT sum(pg_total_relation_size(relid)) AS bytes FROM pg_partition_tree({name})"
        if table.partitioned
        else f"SELECT pg_total_relation_size({name}) AS bytes"
    )
    told = f"Size of {table.full} on disk, with its indexes."
    query = _query(table, "disk_bytes", sql, "bytes", unit="By", description=told)
    return Offer("size", KINDS["size"], query)


def count_by(table: Table, column: TableColumn, most: int) -> Offer:
    """Rows by the values of a column; more than `most` of them are worth a word."""
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
    if (series := _distinct(table, column)) > most:
        look = f"about {series:,.0f} values of {column.name} make a series each, and max_series is {most:,}"
        look += f"; top={column.name} keeps the first of them"
    # Without an OID, as those that matter here are told by their category or name.
    look = many_values(Column(attribute, 0), Type(column.kind, column.category)) or look
    return Offer(f"count-by={column.name}", f"{KINDS['count-by']}: {_told(table, column)}", query, look)


def top(table: Table, column: TableColumn, most: int) -> Offer:
    """Rows by the `most` frequent values of a column, and all others together."""
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


def _age(table: Table, column: TableColumn, which: str, function: str) -> Offer:
    if not is_moment(column):
        what = f"{column.name!r} is {column.kind}; the age of a row needs a timestamp with time zone"
        raise UnknownAggregateError(what)
    sql = f"SELECT extract(epoch FROM now() - {function}({column.quoted})) AS age FROM {table.quoted}"
    means = f"time since the {which} {column.name}"
    told = f"{means[0].upper()}{means[1:]} in {table.full}."
    query = _query(table, f"{which}_{name_part(column.name)}_age", sql, "age", unit="s", description=told)
    look = f"an age is negative while {column.name} lies in the future" if lies_ahead(column) else None
    return Offer(f"{which}-age={column.name}", means, query, look)


def newest_age(table: Table, column: TableColumn) -> Offer:
    """Seconds since the latest time in a column; raises UnknownAggregateError where it holds no time."""
    return _age(table, column, "newest", "max")


def oldest_age(table: Table, column: TableColumn) -> Offer:
    """Seconds since the earliest time in a column; raises UnknownAggregateError where it holds no time."""
    return _age(table, column, "oldest", "min")


def total(table: Table, column: TableColumn) -> Offer:
    """The sum of a column, or of the length of bytes; raises UnknownAggregateError where there is none."""
    if column.kind == "bytea":
        value, unit, last = f"octet_length({column.quoted})", "By", f"{name_part(column.name)}_bytes"
        what = f"the length of {column.name}"
    elif column.category == "N":
        what = column.name
        value, unit, last = column.quoted, guessed_unit(column.name, column.name), name_part(column.name)
    else:
        raise UnknownAggregateError(f"{column.name!r} is {column.kind}, which has no sum; name a number")
    total = f"coalesce(sum({value}), 0)"
    if not column.not_null:
        # sum() leaves out what is NULL without a word, and what remains would look like a total.
        total = f"CASE WHEN count(*) = count({column.quoted}) THEN {total} END"
    sql = f"SELECT {total} AS total FROM {table.quoted}"
    told = f"Sum of {what} over all rows of {table.full}."
    query = _query(table, last, sql, "total", unit=unit, description=told)
    look = None if column.not_null else f"there is no total while any {column.name} is NULL"
    return Offer(f"sum={column.name}", f"the sum of {what}", query, look)


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
    name = f"{name_part(table.name) or 'table'}_{last}"
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
        column.name
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", column.name)
        else name_part(column.name) or "value"
    )
    plain = name == column.name
    return name, column.quoted if plain else f"{column.quoted} AS {name}"


def _unit(table: Table) -> str:
    return guessed_unit("", name_part(table.name))


def _told(table: Table, column: TableColumn) -> str:
    values = column.all_values
    shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
    if not shown and (count := _distinct(table, column)):
        shown = f"about {count:,.0f} values"
    return f"{column.name} ({shown})" if shown else column.name


def _distinct(table: Table, column: TableColumn) -> float:
    """About how many values it has; 0 where it is not known."""
    distinct = column.distinct or 0.0
    return distinct if distinct >= 0 else -distinct * (table.rows or 0.0)


def is_moment(column: TableColumn) -> bool:
    """Whether its values are points in time."""
    return column.kind == "timestamp with time zone"


def lies_ahead(column: TableColumn) -> bool:
    """Whether its times are in the future, where an age is negative: by the statistics, or by its name."""
    return column.ahead or bool(_AHEAD.search(column.name.lower()))

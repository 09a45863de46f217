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
    "count": "number of rows, counted",
    "count-estimate": "number of rows, as estimated by the last ANALYZE; reads no rows",
    "count-by": "number of rows per value of a column with few values",
    "top": "number of rows per value of a column: the most frequent values, and the others in one series",
    "newest-age": "time since the newest row",
    "oldest-age": "time since the oldest row, for example of a queue",
    "sum": "sum of a column",
    "size": "size of the table on disk, with its indexes",
}
"""Description of each aggregate."""
_AHEAD = re.compile(r"(^|_)(expir\w*|until|due|deadline|scheduled|next|not_after|valid_to)(_|$)")
"""Typical names of columns with times in the future."""


class UnknownAggregateError(Exception):
    """The table has no such aggregate; the argument says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One aggregate of one table."""

    key: str
    """Name in options, such as `count-by=state`."""
    means: str
    query: dict[str, Any]
    caution: str | None = None
    """Warning about the values of the query."""


def count(table: Table) -> Offer:
    """Offer the number of rows."""
    query = _query(table, "count", f"SELECT count(*) AS rows FROM {table.quoted}", "rows", unit=_unit(table))
    return Offer("count", KINDS["count"], query)


def count_estimate(table: Table) -> Offer:
    """Offer the number of rows according to the table's statistics."""
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
    description = f"Rows of {table.full}, as estimated by the last ANALYZE."
    query = _query(table, "estimated_count", sql, "rows", unit=_unit(table), description=description)
    return Offer("count-estimate", KINDS["count-estimate"], query)


def size(table: Table) -> Offer:
    """Offer the size on disk in bytes."""
    name = literal(table.quoted)
    sql = (
        f"SELECT sum(pg_total_relation_size(relid)) AS bytes FROM pg_partition_tree({name})"
        if table.partitioned
        else f"SELECT pg_total_relation_size({name}) AS bytes"
    )
    description = f"Size of {table.full} on disk, with its indexes."
    query = _query(table, "disk_bytes", sql, "bytes", unit="By", description=description)
    return Offer("size", KINDS["size"], query)


def count_by(table: Table, column: TableColumn, most: int) -> Offer:
    """Offer the number of rows per value of a column, with a warning if there are more than `most` values."""
    attribute, selected = _attribute(column)
    sql = f"SELECT {selected}, count(*) AS rows FROM {table.quoted} GROUP BY {column.quoted}"
    query = _query(table, f"by_{attribute}", sql, "rows", unit=_unit(table), by=attribute)
    values = column.all_values
    caution = None
    if values and (column.not_null or (column.distinct is not None and not column.nulls)):
        query["metrics"][0]["attribute_values"] = {attribute: list(values)}
        if not column.not_null:
            caution = (
                f"rows whose {column.name} is NULL are rejected; if there are any, remove attribute_values"
            )
        if not column.labels and column.category != "B":
            caution = f"values of {column.name} that are not listed are rejected; list all possible values"
    if (series := _distinct(table, column)) > most:
        caution = (
            f"about {series:,.0f} values of {column.name} need a series each, but max_series is {most:,}"
        )
        caution += f"; top={column.name} exports the most frequent values"
    # No OID is needed: the category or the type's name identifies the types in question.
    caution = many_values(Column(attribute, 0), Type(column.kind, column.category)) or caution
    return Offer(
        f"count-by={column.name}", f"number of rows per value of {_describe(table, column)}", query, caution
    )


def top(table: Table, column: TableColumn, most: int) -> Offer:
    """Offer the number of rows for each of the `most` frequent values of a column, and for all others."""
    attribute, selected = _attribute(column)
    sql = (
        f"SELECT {selected}, count(*) AS rows FROM {table.quoted} GROUP BY {column.quoted} "
        f"ORDER BY rows DESC, {column.quoted}"
    )
    query = _query(table, f"by_{attribute}", sql, "rows", unit=_unit(table), by=attribute)
    query = {**query, "max_series": most, "overflow": "other", "metrics": query["metrics"]}
    order = ("name", "sql", "max_series", "overflow", "metrics")
    means = f"number of rows for the {most} most frequent values of {column.name}, and `other`"
    return Offer(f"top={column.name}", means, {key: query[key] for key in order})


def _age(table: Table, column: TableColumn, which: str, function: str) -> Offer:
    if not is_moment(column):
        message = f"{column.name!r} is {column.kind}; write a column of the type timestamp with time zone"
        raise UnknownAggregateError(message)
    sql = f"SELECT extract(epoch FROM now() - {function}({column.quoted})) AS age FROM {table.quoted}"
    means = f"time since the {which} {column.name}"
    description = f"{means[0].upper()}{means[1:]} in {table.full}."
    query = _query(
        table, f"{which}_{name_part(column.name)}_age", sql, "age", unit="s", description=description
    )
    caution = f"the age is negative while {column.name} is in the future" if lies_ahead(column) else None
    return Offer(f"{which}-age={column.name}", means, query, caution)


def newest_age(table: Table, column: TableColumn) -> Offer:
    """Offer the seconds since the latest time in a column; raises UnknownAggregateError without times."""
    return _age(table, column, "newest", "max")


def oldest_age(table: Table, column: TableColumn) -> Offer:
    """Offer the seconds since the earliest time in a column; raises UnknownAggregateError without times."""
    return _age(table, column, "oldest", "min")


def total(table: Table, column: TableColumn) -> Offer:
    """Offer the sum of a numeric column or of the lengths of a bytea column.

    Raises UnknownAggregateError for other types.
    """
    if column.kind == "bytea":
        value, unit, last = f"octet_length({column.quoted})", "By", f"{name_part(column.name)}_bytes"
        subject = f"the length of {column.name}"
    elif column.category == "N":
        subject = column.name
        value, unit, last = column.quoted, guessed_unit(column.name, column.name), name_part(column.name)
    else:
        raise UnknownAggregateError(
            f"{column.name!r} is {column.kind}, which has no sum; write a numeric column"
        )
    total = f"coalesce(sum({value}), 0)"
    if not column.not_null:
        # sum() ignores NULLs, so a sum of the other rows would look like a total.
        total = f"CASE WHEN count(*) = count({column.quoted}) THEN {total} END"
    sql = f"SELECT {total} AS total FROM {table.quoted}"
    description = f"Sum of {subject} over all rows of {table.full}."
    query = _query(table, last, sql, "total", unit=unit, description=description)
    caution = None if column.not_null else f"no value is exported while any {column.name} is NULL"
    return Offer(f"sum={column.name}", f"sum of {subject}", query, caution)


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
    """Return the attribute's name, and the SELECT expression of this name."""
    name = (
        column.name
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", column.name)
        else name_part(column.name) or "value"
    )
    plain = name == column.name
    return name, column.quoted if plain else f"{column.quoted} AS {name}"


def _unit(table: Table) -> str:
    return guessed_unit("", name_part(table.name))


def _describe(table: Table, column: TableColumn) -> str:
    values = column.all_values
    listed = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
    if not listed and (count := _distinct(table, column)):
        listed = f"about {count:,.0f} values"
    return f"{column.name} ({listed})" if listed else column.name


def _distinct(table: Table, column: TableColumn) -> float:
    """Return the estimated number of distinct values; 0 if unknown."""
    distinct = column.distinct or 0.0
    return distinct if distinct >= 0 else -distinct * (table.rows or 0.0)


def is_moment(column: TableColumn) -> bool:
    """Return whether the column's values are points in time."""
    return column.kind == "timestamp with time zone"


def lies_ahead(column: TableColumn) -> bool:
    """Return whether the column contains future times, according to its statistics or its name."""
    return column.ahead or bool(_AHEAD.search(column.name.lower()))

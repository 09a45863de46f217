"""Query draft from a statement's result columns: values, attributes and units."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poller.config.queries.sql_ast import counted_columns, first_relation, grouped_columns
from poller.model.numbers import NUMBERS
from poller.model.rows import Column, Rows
from poller.model.units import guessed_unit
from poller.postgres.inspect_relations import Type
from poller.tools.check.cardinality import many_values

MAX_LISTED_VALUES = 20
"""Maximum number of values that `attribute_values` lists for one attribute."""

_UNNAMED = "?column?"
_GENERIC_NAMES = {"n", "c", "cnt", "count", "num", "number", "value", "val", "total", "sum"}
_BOOLEAN = "B"
_VOID = 2278
"""OID of the type void (pg_type.dat), which `pg_sleep` and similar functions return."""
_AS_NUMBER = {"D": "extract(epoch FROM ...)", "T": "extract(epoch FROM ...)", _BOOLEAN: "(...)::int"}
_BY_1024 = re.compile(r"/\s*\(?\s*(1024|1048576|1073741824)\b")
_BINARY = {"kBy": "KiBy", "MBy": "MiBy", "GBy": "GiBy", "TBy": "TiBy"}


class NoDraftError(Exception):
    """The result cannot feed a metric; the argument says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Query in the keys of a query file, with warnings about it."""

    query: dict[str, Any]
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.query["name"])


def draft(sql: str, columns: Sequence[Column], types: Mapping[int, Type], name: str | None = None) -> Draft:
    """Return a draft for `sql`, whose result has `columns`; `name` is for the query and its metric.

    Raises NoDraftError if no column is numeric, or a column has no unique name.
    """
    _refuse_unnamed([column.name for column in columns])
    grouped = grouped_columns(sql)
    numbers = [column for column in columns if column.oid in NUMBERS and column.name not in grouped]
    # An identifier is not a quantity; it is the value only if there is no other number.
    values = [column for column in numbers if not re.search(r"(^|_)id$", column.name)] or numbers
    if not values:
        raise NoDraftError(_nothing_to_measure(columns, types))
    void = [column for column in columns if column.oid == _VOID]
    attributes = [column for column in columns if column not in [*values, *void]]
    relation = name_part(first_relation(sql) or "")
    query: dict[str, Any] = {"name": name or "", "sql": sql}
    counted = counted_columns(sql)
    metrics = []
    for column in values:
        metric = _metric_name(relation, column.name, name if len(values) == 1 else None, prefix=name)
        subject = relation or name_part(column.name)
        data: dict[str, Any] = {
            "name": metric,
            "description": sentence(metric),
            "unit": f"{{{_thing(subject)}}}" if column.name in counted else _unit(sql, column.name, subject),
            "value_column": column.name,
        }
        if attributes:
            data["attribute_columns"] = [attribute.name for attribute in attributes]
        metrics.append(data)
    query["name"] = name or (metrics[0]["name"] if len(metrics) == 1 else relation or "query")[:63]
    query["metrics"] = metrics
    kinds = [(attribute, types.get(attribute.oid)) for attribute in attributes]
    doubts = [many_values(attribute, kind) for attribute, kind in kinds if kind is not None]
    return Draft(query, tuple(filter(None, doubts)))


def closed(drafted: Draft, rows: Rows, types: Mapping[int, Type]) -> Draft:
    """Add `attribute_values` for the enum and boolean columns in which no row is NULL.

    A value without a row is then 0 instead of absent.
    """
    values: dict[str, list[str]] = {}
    for position, column in enumerate(rows.columns):
        kind = types.get(column.oid)
        labels = _labels(kind)
        if 0 < len(labels) <= MAX_LISTED_VALUES and all(row[position] is not None for row in rows.values):
            values[column.name] = labels
    metrics = []
    for metric in drafted.query["metrics"]:
        own = {name: values[name] for name in metric.get("attribute_columns", []) if name in values}
        metrics.append({**metric, "attribute_values": own} if own else metric)
    return Draft({**drafted.query, "metrics": metrics}, drafted.doubts)


def _labels(kind: Type | None) -> list[str]:
    if kind is None:
        return []
    return ["true", "false"] if kind.category == _BOOLEAN else list(kind.labels)


def _refuse_unnamed(names: Sequence[str]) -> None:
    if _UNNAMED in names:
        number = names.index(_UNNAMED) + 1
        raise NoDraftError(f"column {number} of the result has no name; name it with AS")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise NoDraftError(f"column {twice!r} occurs {names.count(twice)} times; rename all but one with AS")


def _nothing_to_measure(columns: Sequence[Column], types: Mapping[int, Type]) -> str:
    listed = ", ".join(
        f"{column.name} is {types[column.oid].name if column.oid in types else 'of an unknown type'}"
        for column in columns
    )
    advice = ""
    # The cast encloses the expression, because a SELECT list cannot refer to its own names.
    for column in columns:
        category = types[column.oid].category if column.oid in types else ""
        if form := _AS_NUMBER.get(category):
            advice = f"wrap the expression of {column.name}: {form} AS {column.name}, or "
            break
    return f"no column of the result is a number ({listed}); {advice}cast one, or add count(*) AS n"


def _metric_name(relation: str, column: str, only: str | None, prefix: str | None) -> str:
    if only:
        return name_part(only)
    own = name_part(column)
    last = "count" if own in _GENERIC_NAMES else own
    front = name_part(prefix or relation)
    if not front or last.startswith(front):
        return last or "value"
    return f"{front}_{last}"


def name_part(text: str) -> str:
    """Return `text` as a valid part of a metric's name."""
    part = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
    return part if part[:1].isalpha() else f"x_{part}" if part else ""


def _unit(sql: str, column: str, thing: str) -> str:
    unit = guessed_unit(column, thing)
    return _BINARY.get(unit, unit) if _BY_1024.search(sql) else unit


def _thing(relation: str) -> str:
    return guessed_unit("", relation).strip("{}") if relation else "row"


def sentence(metric: str) -> str:
    """Return a first description for a metric, from its name."""
    return metric.replace("_", " ").capitalize() + "."

"""Turn rows into samples and refuse rows that do not fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from poller.errors import PollError
from poller.model import AttributeValue, Column, MetricDefinition, QueryDefinition, Rows, Sample

# Object identifiers of the built-in types are fixed for ever (PostgreSQL: src/include/catalog/pg_type.dat).
_BOOL = 16
_INTEGERS = {20, 21, 23, 26}
_NUMERIC = 1700
_FLOATS = {700, 701}
_NUMBERS = _INTEGERS | _FLOATS | {_NUMERIC}
_SPOKEN_TYPES = {
    16: "boolean", 25: "text", 1043: "varchar", 1042: "char", 1082: "date", 1114: "timestamp",
    1184: "timestamptz", 1186: "interval", 790: "money", 114: "json", 3802: "jsonb", 2950: "uuid",
    17: "bytea",
}  # fmt: skip
_CASTS = {
    16: "cast it: ({0})::int",
    1186: "write extract(epoch FROM {0})",
    1082: "write extract(epoch FROM {0})",
    1114: "write extract(epoch FROM {0})",
    1184: "write extract(epoch FROM {0})",
    790: "cast it: {0}::numeric",
}

MAX_ATTRIBUTE_LENGTH = 1024
"""Characters; a longer attribute value is a sign of data that was never meant to be one."""

_LEAST, _GREATEST = -(2**63), 2**63 - 1


class _RefusedError(Exception):
    """One data point cannot be told; its one argument is the reason it is counted under."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """The data points of one result, and those that were refused, counted by reason.

    Every row makes one candidate per metric, so that
    `len(samples) + sum(quarantined.values()) == rows (those beyond max_series too) x metrics`.
    """

    samples: tuple[Sample, ...]
    quarantined: Mapping[str, int]


def to_samples(query: QueryDefinition, rows: Rows) -> Mapped:
    """Map the rows of one result by the query's definition.

    Refused alone and counted are a NULL under `on_null: drop` (`null`), NaN (`nan`), infinity (`infinite`),
    every row of a series that comes twice (`duplicate`: which of them is true cannot be known), an
    attribute that is not UTF-8 (`not_utf8`) or is longer than MAX_ATTRIBUTE_LENGTH (`attribute_too_long`),
    and what lies beyond `max_series` (`overflow`).

    Raises PollError of kind `mismatch` where the whole result contradicts the definition: a declared column
    is missing or comes twice, a value column is not of a numeric type, a NULL under `on_null: fail`.
    """
    positions = _positions(query, rows.columns)
    quarantined: Counter[str] = Counter()
    if rows.beyond:
        quarantined["overflow"] = rows.beyond * len(query.metrics)
    samples: list[Sample] = []
    taken: dict[tuple[object, ...], Sample | None] = {}
    for metric in query.metrics:
        value_at = positions[metric.value_column]
        oid = rows.columns[value_at].oid
        columns = [
            (name, positions[name], rows.columns[positions[name]].oid) for name in metric.attribute_columns
        ]
        for row in rows.values:
            try:
                value = _value(row[value_at], oid, metric)
                attributes = _attributes(row, columns)
            except _RefusedError as refused:
                quarantined[str(refused)] += 1
                continue
            attributes.update(metric.attributes)
            key = (metric.name, *sorted(attributes.items()))
            if key in taken:
                # The first of the twins is withdrawn too: one of them is wrong and nobody knows which.
                quarantined["duplicate"] += 1 if taken[key] is None else 2
                taken[key] = None
            else:
                taken[key] = Sample(metric.name, value, attributes)
    samples = [sample for sample in taken.values() if sample is not None]
    return Mapped(tuple(samples), dict(quarantined))


def _positions(query: QueryDefinition, columns: tuple[Column, ...]) -> dict[str, int]:
    """Find each declared column once; tell all that is wrong with them in one error."""
    names = [column.name for column in columns]
    problems: list[str] = []
    wanted: dict[str, int] = {}
    for metric in query.metrics:
        for name in (metric.value_column, *metric.attribute_columns):
            if name in wanted:
                continue
            if names.count(name) > 1:
                problems.append(
                    f"column {name!r} comes {names.count(name)} times; rename all but one with AS"
                )
            elif name not in names:
                problems.append(
                    f"column {name!r} is missing; the result has {', '.join(names) or 'no columns'}"
                )
            wanted[name] = names.index(name) if name in names else 0
        if metric.value_column in names:
            oid = columns[wanted[metric.value_column]].oid
            if oid not in _NUMBERS:
                spoken = _SPOKEN_TYPES.get(oid, f"of the type with OID {oid}")
                cast = _CASTS.get(oid, "cast it to a numeric type").format(metric.value_column)
                problem = f"value column {metric.value_column!r} is {spoken}, not a number; {cast}"
                if problem not in problems:
                    problems.append(problem)
    if problems:
        raise PollError("mismatch", "; ".join(problems))
    return wanted


def _value(raw: bytes | None, oid: int, metric: MetricDefinition) -> int | float:
    if raw is None:
        if metric.on_null == "zero":
            return 0
        if metric.on_null == "fail":
            raise PollError(
                "mismatch", f"column {metric.value_column!r} is NULL and {metric.name} says on_null: fail"
            )
        raise _RefusedError("null")
    try:
        return _number(raw, oid)
    except (ValueError, ArithmeticError):
        raise PollError(
            "mismatch", f"column {metric.value_column!r} holds {raw[:40]!r}, which is no number"
        ) from None


def _number(raw: bytes, oid: int) -> int | float:
    if oid in _INTEGERS:
        return int(raw)
    if oid in _FLOATS:
        return _finite(float(raw))
    number = Decimal(raw.decode("ascii"))
    if number.is_finite() and _LEAST <= number <= _GREATEST and number == number.to_integral_value():
        # sum(bigint) is numeric: a count stays a count.
        return int(number)
    return _finite(float(number))


def _finite(number: float) -> float:
    if math.isnan(number):
        raise _RefusedError("nan")
    if math.isinf(number):
        raise _RefusedError("infinite")
    return number


def _attributes(
    row: tuple[bytes | None, ...], columns: list[tuple[str, int, int]]
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    for name, position, oid in columns:
        raw = row[position]
        if raw is None:
            continue  # OpenTelemetry has no null attribute; an absent one is what NULL says.
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _RefusedError("not_utf8") from None
        if len(text) > MAX_ATTRIBUTE_LENGTH:
            raise _RefusedError("attribute_too_long")
        attributes[name] = {"t": "true", "f": "false"}.get(text, text) if oid == _BOOL else text
    return attributes

"""Histogram of a column as ordinary gauges: `_bucket` with the attribute `le`, `_sum` and `_count`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from poller.config.queries.sql_ast import identifier, without_end
from poller.model.query import MetricDefinition, QueryDefinition

LE = "le"
"""Attribute with the upper bound of a bucket, inclusive, which `histogram_quantile()` reads."""
INFINITE = "+Inf"
COUNT_UNIT = "{value}"
"""In braces, because Prometheus appends other units to the name, after `_bucket`."""
SUFFIXES = ("_bucket", "_sum", "_count")
MAX_COLUMN_BYTES = 63
"""PostgreSQL cuts longer names."""

Boundaries = Sequence[float]


def le_text(boundary: float) -> str:
    """Return a boundary as Prometheus' client libraries write it: `1`, `0.5`, `1e+06`.

    Source: Go's strconv.FormatFloat(boundary, 'g', -1, 64).
    """
    number = Decimal(repr(boundary + 0.0)).normalize()  # + 0.0 turns -0.0 into 0.0
    if -4 <= number.adjusted() < 6:
        return f"{number:f}"
    return f"{f'{number:e}'.partition('e')[0]}e{number.adjusted():+03d}"


def bucket_columns(column: str, boundaries: Boundaries) -> dict[str, str]:
    """Return the result column that counts the values of `column` up to each `le`, `+Inf` included."""
    columns = {le: f"{column} <= {le}" for le in map(le_text, boundaries)}
    return {**columns, INFINITE: _count(column)}


def units(unit: str) -> Mapping[str, str]:
    """Return the unit of each series of a histogram over values in `unit`, by suffix."""
    return {suffix: unit if suffix == "_sum" else COUNT_UNIT for suffix in SUFFIXES}


def with_histogram(query: QueryDefinition, boundaries: Boundaries) -> QueryDefinition:
    """Return `query` with the series of a histogram over its only metric, and statements that aggregate it.

    A result has one row per set of attributes, so its rows are neither duplicates nor NULL.
    """
    (metric,) = query.metrics
    estimate = query.estimate
    if estimate is not None:
        estimate = dataclasses.replace(estimate, sql=_aggregated(estimate.sql, metric, boundaries))
    return dataclasses.replace(
        query,
        sql=_aggregated(query.sql, metric, boundaries),
        estimate=estimate,
        ordered=False,
        metrics=tuple(_series(metric, boundaries)),
    )


def _series(metric: MetricDefinition, boundaries: Boundaries) -> Iterator[MetricDefinition]:
    column, unit = metric.value_column, units(metric.unit)
    for le, source in bucket_columns(column, boundaries).items():
        yield dataclasses.replace(
            metric,
            name=f"{metric.name}_bucket",
            description=f"{metric.description} Number of values up to le.",
            unit=unit["_bucket"],
            value_column=source,
            attributes={**metric.attributes, LE: le},
        )
    for suffix, source, meaning in (("_sum", _sum(column), "Sum"), ("_count", _count(column), "Number")):
        yield dataclasses.replace(
            metric,
            name=metric.name + suffix,
            description=f"{metric.description} {meaning} of the values.",
            unit=unit[suffix],
            value_column=source,
        )


_AGGREGATED = """\
SELECT
  {columns}
FROM (
  SELECT {keys}{bucket}, pg_catalog.count({value}) AS {values}, pg_catalog.sum({value}) AS {total}
  FROM (
    SELECT
      {keys}{value},
      pg_catalog.width_bucket(
        {value}::pg_catalog.float8,
        ARRAY[{thresholds}]::pg_catalog.float8[]
      ) AS {bucket}
    FROM (
{sql}
    ) AS source
    OFFSET 0
  ) AS located
  GROUP BY {keys}{bucket}
) AS counted{group_by}"""
# No attribute column can have a name with a space.
_BUCKET, _VALUES, _TOTAL = '"bucket of value"', '"values in bucket"', '"sum of bucket"'


def _aggregated(sql: str, metric: MetricDefinition, boundaries: Boundaries) -> str:
    """Return a statement that reads `sql` once and places each value in its bucket once.

    width_bucket() returns the number of thresholds up to a value. A value equal to a boundary belongs to its
    bucket, so each threshold is the smallest double above a boundary. NULL is in no bucket, NaN in the last.
    OFFSET 0 keeps the planner from computing the value again for each aggregate, and from expecting a group
    for each value. `sql` stays unchanged, because an error of the server has a position in it.
    """
    column = metric.value_column
    keys = "".join(f"{identifier(name)}, " for name in metric.attribute_columns)
    sums = {
        name: f"{_VALUES}) FILTER (WHERE {_BUCKET} OPERATOR(pg_catalog.<=) {number}"
        for number, name in enumerate(bucket_columns(column, boundaries).values())
    }
    sums |= {_count(column): _VALUES, _sum(column): _TOTAL}
    columns = [f"coalesce(pg_catalog.sum({sum_}), 0) AS {identifier(name)}" for name, sum_ in sums.items()]
    return _AGGREGATED.format(
        columns=",\n  ".join([*filter(None, [keys.removesuffix(", ")]), *columns]),
        keys=keys,
        value=identifier(column),
        bucket=_BUCKET,
        values=_VALUES,
        total=_TOTAL,
        thresholds=", ".join(repr(math.nextafter(boundary, math.inf)) for boundary in boundaries),
        sql=without_end(sql),
        group_by=f"\nGROUP BY {keys.removesuffix(', ')}" if keys else "",
    )


def _count(column: str) -> str:
    return f"count({column})"


def _sum(column: str) -> str:
    return f"sum({column})"


def written_series(metric: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the series of a metric in a query file, which may be invalid, as if they were written there."""
    if not metric.get("histogram"):
        yield dict(metric)
        return
    of_sum = metric.get("unit")
    for suffix, unit in units(of_sum if isinstance(of_sum, str) else "").items():
        yield {**metric, "name": f"{metric['name']}{suffix}", **({"unit": unit} if "unit" in metric else {})}

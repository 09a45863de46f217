"""Catalogue queries for readable tables: size, columns and column statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from poller.postgres.sql_text import literal

_LISTED = 500
"""Maximum number of listed tables, the largest first."""
# pg_partition_tree() would lock all partitions until the transaction ends, and wait for the locks of others.
_LEAVES = """\
SELECT pg_catalog.pg_partition_root(oid)::pg_catalog.oid AS root,
    pg_catalog.sum(reltuples) FILTER (WHERE reltuples OPERATOR(pg_catalog.>=) 0) AS tuples,
    pg_catalog.sum(relpages) AS pages
  FROM pg_catalog.pg_class
  WHERE relispartition AND relkind OPERATOR(pg_catalog.=) ANY ('{r,f}'::pg_catalog."char"[]) GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table, partitioned or not, or one materialized view."""

    schema: str
    name: str
    quoted: str
    """Schema and name as quoted SQL identifiers."""
    rows: float | None
    """Estimate for all partitions together; None if the table has not been analysed."""
    bytes: float
    """Estimate without indexes and TOAST."""
    partitioned: bool

    @property
    def full(self) -> str:
        """Schema and name without quotes."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One readable column."""

    name: str
    quoted: str
    kind: str
    """Name of its type."""
    category: str
    """Category of its type (PostgreSQL manual, `pg_type.typcategory`)."""
    not_null: bool
    labels: tuple[str, ...]
    """Labels of an enum type."""
    distinct: float | None
    """`pg_stats.n_distinct`: a negative number is a share of the rows; None if not analysed."""
    nulls: float
    """Share of NULLs among the rows."""
    common: tuple[str, ...]
    """The most common values."""
    ahead: bool = False
    """Whether the statistics contain a time in the future."""

    @property
    def all_values(self) -> tuple[str, ...]:
        """All values of the type, or of the column at the last ANALYZE; empty if unknown."""
        if self.labels:
            return self.labels
        if self.category == "B":
            return ("true", "false")
        return tuple(sorted(self.common)) if self.distinct == len(self.common) else ()


def tables_query() -> str:
    """Return a statement whose result is the list of the readable tables as one JSON value."""
    return f"""\
WITH leaves AS (
  {_LEAVES})
SELECT coalesce(pg_catalog.json_agg(
  pg_catalog.json_build_array(nspname, relname, quoted, rows, bytes, partitioned)), '[]') FROM (
  SELECT nspname, relname, pg_catalog.format('%I.%I', nspname, relname) AS quoted, partitioned,
    CASE WHEN partitioned THEN tuples WHEN reltuples OPERATOR(pg_catalog.>=) 0 THEN reltuples
      END::pg_catalog.float8 AS rows,
    CASE WHEN partitioned THEN pages ELSE relpages END::pg_catalog.float8
      OPERATOR(pg_catalog.*) pg_catalog.current_setting('block_size')::int AS bytes
  FROM (SELECT *, relkind OPERATOR(pg_catalog.=) 'p' AS partitioned FROM pg_catalog.pg_class) AS relation
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
  LEFT JOIN leaves ON root OPERATOR(pg_catalog.=) relation.oid
  WHERE relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,m}}'::pg_catalog."char"[]) AND NOT relispartition
    AND nspname OPERATOR(pg_catalog.!~) '^pg_|^information_schema$'
    AND pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
    AND (pg_catalog.has_table_privilege(relation.oid, 'SELECT')
      OR pg_catalog.has_any_column_privilege(relation.oid, 'SELECT'))
  ORDER BY bytes DESC NULLS LAST, nspname, relname LIMIT {_LISTED}) AS listed"""


def read_tables(answer: bytes) -> list[Table]:
    """Read the result of `tables_query`, the largest table first."""
    return [
        Table(schema, name, quoted, rows, size or 0.0, partitioned)
        for schema, name, quoted, rows, size, partitioned in json.loads(answer.decode(errors="replace"))
    ]


def columns_query(table: Table) -> str:
    """Return a statement whose result is the list of the readable columns of `table` as one JSON value."""
    return f"""\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', attname, 'quoted', pg_catalog.quote_ident(attname),
    'kind', pg_catalog.format_type(atttypid, NULL), 'category', typcategory, 'not_null', attnotnull,
    'labels', (SELECT coalesce(pg_catalog.json_agg(enumlabel ORDER BY enumsortorder), '[]')
      FROM pg_catalog.pg_enum WHERE enumtypid OPERATOR(pg_catalog.=) atttypid),
    'distinct', n_distinct, 'nulls', coalesce(null_frac, 0), 'common', coalesce(common, '[]'),
    'ahead', CASE WHEN atttypid OPERATOR(pg_catalog.=) 'pg_catalog.timestamptz'::pg_catalog.regtype THEN (
      SELECT coalesce(
        pg_catalog.max(bound::pg_catalog.timestamptz) OPERATOR(pg_catalog.>) pg_catalog.now(), false)
      FROM pg_catalog.unnest(stats.bounds) AS bound) ELSE false END)
  ORDER BY attnum), '[]')
FROM pg_catalog.pg_attribute
JOIN pg_catalog.pg_type ON pg_type.oid OPERATOR(pg_catalog.=) atttypid
LEFT JOIN LATERAL (
  SELECT n_distinct, null_frac,
    pg_catalog.to_json(most_common_vals::pg_catalog.text::pg_catalog.text[]) AS common,
    histogram_bounds::pg_catalog.text::pg_catalog.text[]
      OPERATOR(pg_catalog.||) most_common_vals::pg_catalog.text::pg_catalog.text[] AS bounds
  FROM pg_catalog.pg_stats
  WHERE schemaname OPERATOR(pg_catalog.=) {literal(table.schema)}
    AND tablename OPERATOR(pg_catalog.=) {literal(table.name)}
    AND pg_stats.attname OPERATOR(pg_catalog.=) pg_attribute.attname
  ORDER BY inherited DESC LIMIT 1) AS stats ON true
WHERE attrelid OPERATOR(pg_catalog.=) {literal(table.quoted)}::pg_catalog.regclass
  AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped
  AND pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT')"""


def read_columns(answer: bytes) -> dict[str, TableColumn]:
    """Read the result of `columns_query`; returns the columns by name."""
    rows: list[Mapping[str, object]] = json.loads(answer.decode(errors="replace"))
    columns = [
        TableColumn(
            **{
                key: tuple(map(str, value)) if isinstance(value, list) else value
                for key, value in row.items()
            }  # type: ignore[arg-type] # the keys are those of the statement above
        )
        for row in rows
    ]
    return {column.name: column for column in columns}


def kinds_query(name: str) -> str:
    """Return a statement whose result is the list of the relations named `name` as one JSON value."""
    return f"""\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(relkind, relispartition,
    nspname OPERATOR(pg_catalog.~) '^pg_|^information_schema$')), '[]')
FROM pg_catalog.pg_class
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
WHERE {literal(name)} OPERATOR(pg_catalog.=) ANY (ARRAY[
  relname::pg_catalog.text, pg_catalog.concat(nspname, '.', relname),
  pg_catalog.format('%I.%I', nspname, relname)])"""


def no_table(answer: bytes, name: str) -> str | None:
    """Return why `name` is not a readable table and what to do, from the result of `kinds_query`.

    None if there is no such relation.
    """
    relations = json.loads(answer.decode(errors="replace"))
    if not relations:
        return None
    own = [(kind, partition) for kind, partition, system in relations if not system]
    by_hand = f'poller try "SELECT count(*) AS n FROM {name}"'
    if not own:
        return f"is a system relation; write a statement: {by_hand}"
    kind, partition = min(own, key=lambda relation: relation[0] not in "rpm")
    if kind not in "rpm":
        kind_name = _OTHER_KINDS.get(kind, "not a table")
        return (
            f"is {kind_name}; write a statement: {by_hand}"
            if kind in "vf"
            else f"is {kind_name}; write the name of a table"
        )
    if partition:
        return f"is a partition; write the name of the partitioned table, or {by_hand}"
    return "is a table that the role may not read; GRANT SELECT on it"


_OTHER_KINDS = {"v": "a view", "f": "a foreign table", "i": "an index", "I": "an index", "S": "a sequence"}

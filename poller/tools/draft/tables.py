"""Catalogue queries for readable tables: size, columns and column statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from poller.postgres.sql_text import literal

_LISTED = 500
"""Tables that are listed: the largest."""
# pg_partition_tree() would lock every partition there is until the transaction ends, and wait for those that
# somebody else has locked.
_LEAVES = """\
SELECT pg_catalog.pg_partition_root(oid)::pg_catalog.oid AS root,
    pg_catalog.sum(reltuples) FILTER (WHERE reltuples OPERATOR(pg_catalog.>=) 0) AS tuples,
    pg_catalog.sum(relpages) AS pages
  FROM pg_catalog.pg_class
  WHERE relispartition AND relkind OPERATOR(pg_catalog.=) ANY ('{r,f}'::pg_catalog."char"[]) GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table, partitioned or not, or materialized view."""

    schema: str
    name: str
    quoted: str
    """Schema and name as SQL takes them."""
    rows: float | None
    """By statistics; None where nobody has looked yet. Of all partitions together."""
    bytes: float
    """By statistics, without indexes and what is stored out of line."""
    partitioned: bool

    @property
    def full(self) -> str:
        """Schema and name as people write them."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column that may be read."""

    name: str
    quoted: str
    kind: str
    """Its type, as PostgreSQL spells it."""
    category: str
    """PostgreSQL manual, `pg_type.typcategory`."""
    not_null: bool
    labels: tuple[str, ...]
    """Those of an enum."""
    distinct: float | None
    """Distinct values; negative: as a share of the rows; None where nobody has looked (`pg_stats`)."""
    nulls: float
    """Share of the rows that are NULL."""
    common: tuple[str, ...]
    """The most common values."""
    ahead: bool = False
    """Whether the statistics know a time of it that lies in the future."""

    @property
    def all_values(self) -> tuple[str, ...]:
        """Every value there was at the last ANALYZE, or that the type has; empty where it is not known."""
        if self.labels:
            return self.labels
        if self.category == "B":
            return ("true", "false")
        return tuple(sorted(self.common)) if self.distinct == len(self.common) else ()


def tables_query() -> str:
    """The one statement that lists the tables the role may read, as a JSON value."""
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
    """Read what `tables_query` came to, the largest first."""
    return [
        Table(schema, name, quoted, rows, size or 0.0, partitioned)
        for schema, name, quoted, rows, size, partitioned in json.loads(answer.decode(errors="replace"))
    ]


def columns_query(table: Table) -> str:
    """The one statement that describes the columns of `table` that may be read, as a JSON value."""
    return f"""\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', attname, 'quoted', pg_catalog.quote_ident(attname),
    'kind', pg_catalog.format_type(atttypid, NULL), 'category', typcategory, 'not_null', attnotnull,
    'labels', (SELECT coalesce(pg_catalog.json_agg(enumlabel ORDER BY enumsortorder), '[]')
      FROM pg_catalog.pg_enum WHERE enumtypid OPERATOR(pg_catalog.=) atttypid),
    'distinct', n_distinct, 'nulls', coalesce(null_frac, 0), 'common', coalesce(common, '[]'),
    'ahead', CASE WHEN atttypid OPERATOR(pg_catalog.=) 'pg_catalog.timestamptz'::pg_catalog.regtype THEN (
      SELECT coalesce(
        pg_catalog.max(one::pg_catalog.timestamptz) OPERATOR(pg_catalog.>) pg_catalog.now(), false)
      FROM pg_catalog.unnest(known.bounds) AS one) ELSE false END)
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
  ORDER BY inherited DESC LIMIT 1) AS known ON true
WHERE attrelid OPERATOR(pg_catalog.=) {literal(table.quoted)}::pg_catalog.regclass
  AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped
  AND pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT')"""


def read_columns(answer: bytes) -> dict[str, TableColumn]:
    """Read what `columns_query` came to, by name."""
    told: list[Mapping[str, object]] = json.loads(answer.decode(errors="replace"))
    columns = [
        TableColumn(
            **{
                key: tuple(map(str, value)) if isinstance(value, list) else value
                for key, value in one.items()
            }  # type: ignore[arg-type] # the keys are those of the statement above
        )
        for one in told
    ]
    return {column.name: column for column in columns}


def kinds_query(name: str) -> str:
    """The one statement that tells what is called `name`, readable or not, as a JSON value."""
    return f"""\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(relkind, relispartition,
    nspname OPERATOR(pg_catalog.~) '^pg_|^information_schema$')), '[]')
FROM pg_catalog.pg_class
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
WHERE {literal(name)} OPERATOR(pg_catalog.=) ANY (ARRAY[
  relname::pg_catalog.text, pg_catalog.concat(nspname, '.', relname),
  pg_catalog.format('%I.%I', nspname, relname)])"""


def no_table(answer: bytes, name: str) -> str | None:
    """Why the thing called `name` is no table to choose, by what `kinds_query` came to, and what to do.

    None where nothing is called so.
    """
    found = json.loads(answer.decode(errors="replace"))
    if not found:
        return None
    own = [(kind, partition) for kind, partition, systems in found if not systems]
    by_hand = f'poller try "SELECT count(*) AS n FROM {name}"'
    if not own:
        return f"is of PostgreSQL's own; write a statement: {by_hand}"
    kind, partition = min(own, key=lambda one: one[0] not in "rpm")
    if kind not in "rpm":
        told = _OTHER_KINDS.get(kind, "no table")
        return f"is {told}; write a statement: {by_hand}" if kind in "vf" else f"is {told}; name a table"
    if partition:
        return f"is a partition; name the whole table, or {by_hand}"
    return "is no table that the role may read; GRANT SELECT on it"


_OTHER_KINDS = {"v": "a view", "f": "a foreign table", "i": "an index", "I": "an index", "S": "a sequence"}

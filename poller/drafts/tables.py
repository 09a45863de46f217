"""Say which tables the role may read, how large they are, and what the statistics know of their columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from poller.inspection.relations import literal

_LISTED = 500
"""Tables that are listed: the largest."""
# pg_partition_tree() would lock every partition there is until the transaction ends, and wait for those that
# somebody else has locked.
_LEAVES = """\
SELECT pg_partition_root(oid)::oid AS root, sum(reltuples) FILTER (WHERE reltuples >= 0) AS tuples,
    sum(relpages) AS pages
  FROM pg_class WHERE relispartition AND relkind IN ('r', 'f') GROUP BY 1"""


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
SELECT coalesce(json_agg(json_build_array(nspname, relname, quoted, rows, bytes, partitioned)), '[]') FROM (
  SELECT nspname, relname, format('%I.%I', nspname, relname) AS quoted, relkind = 'p' AS partitioned,
    (CASE relkind WHEN 'p' THEN tuples ELSE nullif(reltuples, -1) END)::float8 AS rows,
    (CASE relkind WHEN 'p' THEN pages ELSE relpages END)::float8 * current_setting('block_size')::int AS bytes
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
  LEFT JOIN leaves ON root = pg_class.oid
  WHERE relkind IN ('r', 'p', 'm') AND NOT relispartition
    AND nspname <> 'information_schema' AND nspname !~ '^pg_'
    AND has_schema_privilege(relnamespace, 'USAGE')
    AND (has_table_privilege(pg_class.oid, 'SELECT') OR has_any_column_privilege(pg_class.oid, 'SELECT'))
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
SELECT coalesce(json_agg(json_build_object('name', attname, 'quoted', quote_ident(attname),
    'kind', format_type(atttypid, NULL), 'category', typcategory, 'not_null', attnotnull,
    'labels', (SELECT coalesce(json_agg(enumlabel ORDER BY enumsortorder), '[]') FROM pg_enum
      WHERE enumtypid = atttypid),
    'distinct', n_distinct, 'nulls', coalesce(null_frac, 0), 'common', coalesce(common, '[]'),
    'ahead', CASE WHEN atttypid = 'timestamptz'::regtype THEN
      (SELECT coalesce(max(one::timestamptz) > now(), false) FROM unnest(known.bounds) AS one) ELSE false END)
  ORDER BY attnum), '[]')
FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN LATERAL (
  SELECT n_distinct, null_frac, to_json(most_common_vals::text::text[]) AS common,
    histogram_bounds::text::text[] || most_common_vals::text::text[] AS bounds FROM pg_stats
  WHERE schemaname = {literal(table.schema)} AND tablename = {literal(table.name)}
    AND pg_stats.attname = pg_attribute.attname
  ORDER BY inherited DESC LIMIT 1) AS known ON true
WHERE attrelid = {literal(table.quoted)}::regclass AND attnum > 0 AND NOT attisdropped
  AND has_column_privilege(attrelid, attnum, 'SELECT')"""


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
SELECT coalesce(json_agg(json_build_array(relkind, relispartition,
    nspname ~ '^pg_' OR nspname = 'information_schema')), '[]')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE {literal(name)} IN (relname, nspname || '.' || relname, format('%I.%I', nspname, relname))"""


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

"""Catalogue facts about relations and types: estimated sizes, indexes and names."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from poller.model.text import near
from poller.postgres.sql_text import literal

_MOST_NAMES = 2000
"""Number of relation names that are searched for a similar one."""
_CLOSE = 0.75
"""Minimum similarity. Among thousands of names, unrelated ones are similar too:
pg_buffercache and pgbench_branches have 0.6."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One table, with the statistics of the last ANALYZE or VACUUM."""

    schema: str
    name: str
    quoted: str
    """Schema and name, quoted for SQL."""
    rows: float | None
    """Estimated rows (`reltuples`); None if the table was never analyzed."""
    indexed: Mapping[str, str]
    """Leading columns of valid, non-partial indexes, and their names quoted for SQL."""


@dataclass(frozen=True, slots=True)
class Type:
    """One type, by its name and PostgreSQL's category (manual, `pg_type.typcategory`)."""

    name: str
    category: str
    labels: tuple[str, ...] = ()
    """The labels of an enum, in order."""


def known_query(oids: Collection[int], relations: Collection[tuple[str, str]]) -> str:
    """Return the statement that reads types and relations, as a single JSON value."""
    types = ", ".join(map(str, sorted(oids)))
    names = ", ".join(f"({literal(schema)}, {literal(name)})" for schema, name in sorted(relations))
    return f"""\
SELECT pg_catalog.json_build_object(
  'types', (
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
      pg_type.oid::bigint, pg_catalog.format_type(pg_type.oid, NULL), typcategory, (
        SELECT coalesce(pg_catalog.json_agg(enumlabel ORDER BY enumsortorder), '[]')
        FROM pg_catalog.pg_enum WHERE enumtypid OPERATOR(pg_catalog.=) pg_type.oid))), '[]')
    FROM pg_catalog.pg_type
    WHERE pg_type.oid OPERATOR(pg_catalog.=) ANY (ARRAY[{types}]::pg_catalog.oid[])),
  'relations', (
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
      nspname, relname, pg_catalog.format('%I.%I', nspname, relname),
      CASE WHEN reltuples OPERATOR(pg_catalog.>=) 0 THEN reltuples END::pg_catalog.float8, (
        SELECT coalesce(pg_catalog.json_object_agg(attname, pg_catalog.quote_ident(attname)), '{{}}')
        FROM pg_catalog.pg_index JOIN pg_catalog.pg_attribute
          ON attrelid OPERATOR(pg_catalog.=) indrelid AND attnum OPERATOR(pg_catalog.=) indkey[0]
        WHERE indrelid OPERATOR(pg_catalog.=) pg_class.oid AND indisvalid AND indpred IS NULL))), '[]')
    FROM pg_catalog.pg_class
      JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
      JOIN (VALUES {names or "(NULL, NULL)"}) AS wanted(schema, name)
        ON nspname OPERATOR(pg_catalog.=) wanted.schema AND relname OPERATOR(pg_catalog.=) wanted.name))"""


def read_known(answer: bytes) -> tuple[dict[int, Type], dict[tuple[str, str], Relation]]:
    """Read the result of `known_query`: types by OID, relations by schema and name."""
    data = json.loads(answer.decode(errors="replace"))
    types = {oid: Type(name, category, tuple(labels)) for oid, name, category, labels in data["types"]}
    relations = {
        (schema, name): Relation(schema, name, quoted, rows, indexed)
        for schema, name, quoted, rows, indexed in data["relations"]
    }
    return types, relations


def names_query() -> str:
    """Return the statement that lists the names of relations the role may read, as a JSON value."""
    return f"""\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(relname, full_name, visible)), '[]') FROM (
  SELECT relname, pg_catalog.format('%I.%I', nspname, relname) AS full_name,
    pg_catalog.pg_table_is_visible(pg_class.oid) AS visible
  FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
  WHERE relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,v,m,f}}'::pg_catalog."char"[]) AND NOT relispartition
    AND nspname OPERATOR(pg_catalog.!~) '^pg_toast'
    AND pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
    AND (pg_catalog.has_table_privilege(pg_class.oid, 'SELECT')
      OR pg_catalog.has_any_column_privilege(pg_class.oid, 'SELECT'))
  ORDER BY nspname OPERATOR(pg_catalog.~) '^pg_|^information_schema$', nspname, relname
  LIMIT {_MOST_NAMES}) AS listed"""


def most_similar(name: str, answer: bytes) -> str | None:
    """Return the relation that is most similar to `name` in the result of `names_query`, or None."""
    data = json.loads(answer.decode(errors="replace"))
    if "." in name:
        return near(name, [full for _, full, _ in data], _CLOSE)
    # A relation of this name is visible, but not along the search_path of the query.
    bare = {
        relation: relation if visible and relation != name else full
        for relation, full, visible in reversed(data)
    }
    return bare.get(near(name, bare, _CLOSE) or "")

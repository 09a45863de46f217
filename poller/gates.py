"""Decide from the server's catalogue whether a query's requirements are met."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.model import QueryDefinition, Requirements

_COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq}
_IDENTIFIER = r'("(?:[^"]|"")+"|[^".\s]+)'
_RELATION = re.compile(rf"(?:{_IDENTIFIER}\.)?{_IDENTIFIER}")
_COMPARISON = re.compile(r"(>=|>|<=|<|==)\s*(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one look at the server told: enough to decide every requirement of a tick."""

    standby: bool
    version: int
    """As `server_version_num`: 150018 is 15.18."""
    columns: Mapping[str, frozenset[str]]
    """Columns of each relation that exists, by its name in the query files; no key, no relation."""
    extensions: frozenset[str]


def facts_query(queries: Iterable[QueryDefinition]) -> str:
    """The one statement that fetches ServerFacts for `queries`, as a single JSON value.

    It reads the system catalogue only and never names a relation of the user's as such, so that a
    missing one makes no error in the server's log, and follows the search_path as the query will.
    `to_regclass` would do the same, but raises for a schema that may not be used and for a name of three
    parts, and one query's error here would be every query's.
    """
    relations = sorted({name for query in queries for name in query.requires.columns})
    names = ", ".join(_row(name) for name in relations) or "(NULL, NULL, NULL)"
    return f"""\
SELECT json_build_object(
  'standby', pg_is_in_recovery(),
  'version', current_setting('server_version_num')::int,
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
  'columns', (
    SELECT coalesce(json_object_agg(wanted.name, (
      SELECT coalesce(json_agg(attname), '[]') FROM pg_attribute
      WHERE attrelid = found.oid AND attnum > 0 AND NOT attisdropped)), '{{}}')
    FROM (VALUES {names}) AS wanted(name, schema, relation), LATERAL (
      SELECT pg_class.oid FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE relname = relation
        AND CASE WHEN schema IS NULL THEN nspname = ANY (current_schemas(true)) ELSE nspname = schema END
      ORDER BY array_position(current_schemas(true), nspname) LIMIT 1) AS found))"""


def read_facts(answer: bytes) -> ServerFacts:
    """Read what `facts_query` came to."""
    # A database in SQL_ASCII keeps names in any encoding.
    told = json.loads(answer.decode(errors="replace"))
    return ServerFacts(
        standby=told["standby"],
        version=told["version"],
        columns={name: frozenset(columns) for name, columns in told["columns"].items()},
        extensions=frozenset(told["extensions"]),
    )


def unmet(requires: Requirements, facts: ServerFacts) -> str | None:
    """Say which requirement does not hold, in words; None where all hold."""
    if requires.role != "any" and (requires.role == "standby") != facts.standby:
        return f"needs a {requires.role}, this server is a {'standby' if facts.standby else 'primary'}"
    if requires.server_version and not _in_range(requires.server_version, facts.version):
        return f"needs server version {requires.server_version}, this server has {_spoken(facts.version)}"
    for extension in requires.extensions:
        if extension not in facts.extensions:
            return f"extension {extension} is not installed"
    for relation, columns in requires.columns.items():
        if relation not in facts.columns:
            return f"relation {relation} does not exist"
        for column in columns:
            if column not in facts.columns[relation]:
                return f"column {relation}.{column} does not exist"
    return None


def _in_range(wanted: str, version: int) -> bool:
    # 14 means every 14.x: where no minor is written, only majors are compared.
    return all(
        _COMPARISONS[sign](version // 10000, int(major))
        if minor == ""
        else _COMPARISONS[sign](version, int(major) * 10000 + int(minor))
        for sign, major, minor in _COMPARISON.findall(wanted)
    )


def _spoken(version: int) -> str:
    return f"{version // 10000}.{version % 10000}"


def _row(name: str) -> str:
    """One row of what is wanted: the name as it stands, its schema (or NULL) and its relation."""
    match = _RELATION.fullmatch(name)
    schema, relation = (_folded(part) for part in match.groups()) if match else (None, None)
    return f"({_literal(name)}, {_literal(schema)}, {_literal(relation)})"


def _folded(identifier: str | None) -> str | None:
    """Read an identifier as PostgreSQL does: what is not quoted is folded to lower case."""
    if identifier is None or not identifier.startswith('"'):
        return identifier and identifier.lower()
    return identifier[1:-1].replace('""', '"')


def _literal(text: str | None) -> str:
    """Quote a name from a query file as an SQL string (standard_conforming_strings is on since 9.1)."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"

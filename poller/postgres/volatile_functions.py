"""Volatile functions that a statement may call, which READ ONLY does not always prevent."""

from __future__ import annotations

import json
from collections.abc import Sequence

from poller.config.queries.sql_ast import called_functions, named_types, read_relations, used_operators
from poller.config.queries.sql_functions import is_harmless
from poller.postgres.charset import UTF8, Charset
from poller.postgres.sql_text import literal

ADVICE = (
    "if it only reads, declare it STABLE, so that PostgreSQL refuses its writes: "
    "ALTER FUNCTION ... STABLE; else omit it"
)
_MOST = 1000
"""Maximum number of names of one statement that are looked up."""


def volatile_query(sqls: Sequence[str], charset: Charset = UTF8) -> str:
    """Return the statement that finds, for each of `sqls`, the volatile functions that it may call.

    It looks up function calls by name and number of arguments; operators, types (their casts, and the checks
    of domains) and relations (views, row security policies) by name; and all their dependencies. It reads the
    functions of views, policies and checks from their expression trees, because PostgreSQL records no
    dependency on its built-in functions. It does not read the bodies of functions. It omits names that
    `charset` cannot encode: no such object exists, and the statement would fail for all `sqls`.
    """

    def exists(schema: str | None, name: str) -> bool:
        return charset.has(f"{schema}{name}")

    signatures: list[str] = []
    named: list[str] = []
    for number, sql in enumerate(sqls):
        signatures += [
            f"({number}, {_name(call.schema)}, {_name(call.name)}, {call.arguments})"
            for call in sorted(set(called_functions(sql)), key=str)[:_MOST]
            if exists(call.schema, call.name)
        ]
        for kind, names in (
            ("operator", used_operators(sql)),
            ("type", named_types(sql)),
            ("relation", read_relations(sql)),
        ):
            named += [
                f"({number}, '{kind}', {_name(schema)}, {_name(name)})"
                for schema, name in sorted(names, key=str)[:_MOST]
                if exists(schema, name)
            ]
    return _QUERY.format(
        signatures=", ".join(signatures) or "(NULL::pg_catalog.int4, NULL, NULL, 0)",
        named=", ".join(named) or "(NULL::pg_catalog.int4, '', NULL, NULL)",
    )


def read_volatile(answer: bytes) -> dict[int, list[str]]:
    """Return the functions that `volatile_query` found and that may be harmful, by statement number.

    Only functions of PostgreSQL and its contrib modules can be harmless; a user's function of the same name
    is not.
    """
    functions: dict[int, list[str]] = {}
    for number, schema, name, shipped in json.loads(answer.decode(errors="replace")):
        if not (shipped and is_harmless(name)):
            functions.setdefault(number, []).append(name if schema == "pg_catalog" else f"{schema}.{name}")
    return {number: sorted(set(names)) for number, names in functions.items()}


def _name(name: str | None) -> str:
    return "NULL" if name is None else f"{literal(name)}::pg_catalog.name"


def _oid(catalog: str) -> str:
    return f"'pg_catalog.{catalog}'::pg_catalog.regclass::pg_catalog.oid"


def _edges() -> str:
    """Return the dependencies of objects, as the body of a query over `reached`."""
    parts = [
        ("pg_rewrite", "pg_rewrite.oid", "pg_class", _VIEW_RULES, "ev_class"),
        ("pg_policy", "oid", "pg_class", "pg_policy", "polrelid"),
        ("pg_constraint", "oid", "pg_type", "pg_constraint", "contypid"),
        ("pg_cast", "oid", "pg_type", "pg_cast", "casttarget"),
        ("pg_type", "atttypid", "pg_type", _ATTRIBUTES, "pg_type.oid"),
        ("pg_proc", "castfunc", "pg_cast", "pg_cast", "oid"),
        ("pg_proc", "oprcode", "pg_operator", "pg_operator", "oid"),
        *(("pg_proc", support, "pg_proc", "pg_aggregate", "aggfnoid") for support in _SUPPORT),
    ]
    joins = [
        f"SELECT {_oid(to)} AS class, {column}::pg_catalog.oid AS id FROM pg_catalog.{catalog} "
        f"WHERE reached.class OPERATOR(pg_catalog.=) {_oid(start)} "
        f"AND {key}::pg_catalog.oid OPERATOR(pg_catalog.=) reached.id"
        for to, column, start, catalog, key in parts
    ]
    joins += [
        f"SELECT {_oid('pg_proc')}, parts[1]::pg_catalog.oid FROM pg_catalog.{catalog}, "
        f"pg_catalog.regexp_matches({tree}::pg_catalog.text, "
        "':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') AS found(parts) "
        f"WHERE reached.class OPERATOR(pg_catalog.=) {_oid(catalog)} "
        f"AND {catalog}.oid OPERATOR(pg_catalog.=) reached.id"
        for catalog, tree in (
            ("pg_rewrite", "ev_action"),
            ("pg_policy", "polqual"),
            ("pg_constraint", "conbin"),
        )
    ]
    follow = ", ".join(
        map(
            _oid, ("pg_rewrite", "pg_policy", "pg_constraint", "pg_cast", "pg_operator", "pg_type", "pg_proc")
        )
    )
    into = ", ".join(map(_oid, ("pg_class", "pg_operator", "pg_type", "pg_proc")))
    joins.append(
        "SELECT refclassid, refobjid FROM pg_catalog.pg_depend "
        "WHERE classid OPERATOR(pg_catalog.=) reached.class AND objid OPERATOR(pg_catalog.=) reached.id "
        f"AND classid OPERATOR(pg_catalog.=) ANY (ARRAY[{follow}]) "
        f"AND refclassid OPERATOR(pg_catalog.=) ANY (ARRAY[{into}])"
    )
    return "\n    UNION ALL ".join(joins)


# Reading a materialized view or a table runs no rule.
_VIEW_RULES = """\
pg_rewrite JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) ev_class
  AND relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
  AND ev_type OPERATOR(pg_catalog.=) '1'::pg_catalog."char"
"""
# A composite value is made of values of the types of its attributes.
_ATTRIBUTES = "pg_type JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) typrelid"
_SUPPORT = (
    "aggtransfn", "aggfinalfn", "aggcombinefn", "aggserialfn", "aggdeserialfn", "aggmtransfn",
    "aggminvtransfn", "aggmfinalfn",
)  # fmt: skip


def _visible(kind: str, catalog: str, name: str, namespace: str, visible: str) -> str:
    return f"""\
  SELECT named.number, {_oid(catalog)}, {catalog}.oid
  FROM named
  JOIN pg_catalog.{catalog} ON {name} OPERATOR(pg_catalog.=) named.name
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) {namespace}
  WHERE named.kind OPERATOR(pg_catalog.=) '{kind}'
    AND CASE WHEN named.schema IS NULL THEN pg_catalog.{visible}({catalog}.oid)
      ELSE pg_namespace.nspname OPERATOR(pg_catalog.=) named.schema END"""


_START = "\n  UNION\n".join(
    [
        # PostgreSQL's own operators, which have lower OIDs, are never volatile.
        _visible("operator", "pg_operator", "oprname", "oprnamespace", "pg_operator_is_visible")
        + "\n    AND pg_operator.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid",
        _visible("type", "pg_type", "typname", "typnamespace", "pg_type_is_visible"),
        _visible("relation", "pg_class", "relname", "relnamespace", "pg_table_is_visible"),
    ]
)
_QUERY = f"""\
WITH RECURSIVE wanted(number, schema, name, arguments) AS (VALUES {{signatures}}),
named(number, kind, schema, name) AS (VALUES {{named}}),
started(number, class, id) AS (
  SELECT wanted.number, {_oid("pg_proc")}, pg_proc.oid
  FROM wanted
  JOIN pg_catalog.pg_proc ON pg_proc.proname OPERATOR(pg_catalog.=) wanted.name
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) pg_proc.pronamespace
  WHERE CASE WHEN wanted.schema IS NULL THEN pg_catalog.pg_function_is_visible(pg_proc.oid)
    ELSE pg_namespace.nspname OPERATOR(pg_catalog.=) wanted.schema END
    AND (pg_proc.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
      OR pg_proc.prokind OPERATOR(pg_catalog.=) 'a'::pg_catalog."char"
      OR wanted.arguments OPERATOR(pg_catalog.<=) pg_proc.pronargs
        AND wanted.arguments OPERATOR(pg_catalog.>=)
          (pg_proc.pronargs OPERATOR(pg_catalog.-) pg_proc.pronargdefaults))
  UNION
{_START}),
reached(number, class, id) AS (
  SELECT number, class, id FROM started
  UNION
  SELECT reached.number, next.class, next.id
  FROM reached CROSS JOIN LATERAL (
    {_edges()}) AS next)
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(
  reached.number, pg_namespace.nspname, pg_proc.proname,
  pg_namespace.nspname OPERATOR(pg_catalog.=) 'pg_catalog' OR EXISTS (
    SELECT FROM pg_catalog.pg_depend
    WHERE classid OPERATOR(pg_catalog.=) {_oid("pg_proc")}
      AND objid OPERATOR(pg_catalog.=) pg_proc.oid
      AND deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char"))), '[]'::pg_catalog.json)
FROM reached
JOIN pg_catalog.pg_proc ON pg_proc.oid OPERATOR(pg_catalog.=) reached.id
JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) pg_proc.pronamespace
WHERE reached.class OPERATOR(pg_catalog.=) {_oid("pg_proc")}
  AND pg_proc.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog."char" """

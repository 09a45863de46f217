"""Find the volatile functions that a statement may call, which READ ONLY does not always stop."""

from __future__ import annotations

import json
from collections.abc import Sequence

from poller.functions import is_harmless
from poller.parsed import called_functions, read_relations, used_operators
from poller.sqltext import literal

ADVICE = (
    "if it only reads, declare it STABLE, so that PostgreSQL refuses its writes: "
    "ALTER FUNCTION ... STABLE; else omit it"
)
_MOST = 1000
"""Names of one statement that are looked up."""


def volatile_query(sqls: Sequence[str]) -> str:
    """The statement that finds, for each of `sqls`, the volatile functions that it may call.

    It looks up function calls by name and number of arguments, operators by name, and what the views and the
    row security policies of its relations depend on (PostgreSQL records no dependency on a function of its
    own, nor what the body of a function calls).
    """
    calls: list[str] = []
    operators: list[str] = []
    relations: list[str] = []
    for number, sql in enumerate(sqls):
        calls += [
            f"({number}, {_name(call.schema)}, {_name(call.name)}, {call.arguments})"
            for call in sorted(set(called_functions(sql)), key=str)[:_MOST]
        ]
        operators += [f"({number}, {_name(name)})" for name in sorted(used_operators(sql))[:_MOST]]
        relations += [
            f"({number}, {_name(schema)}, {_name(name)})"
            for schema, name in sorted(read_relations(sql), key=str)[:_MOST]
        ]
    return _QUERY.format(
        calls=", ".join(calls) or "(NULL::pg_catalog.int4, NULL, NULL, 0)",
        operators=", ".join(operators) or "(NULL::pg_catalog.int4, NULL)",
        relations=", ".join(relations) or "(NULL::pg_catalog.int4, NULL, NULL)",
    )


def read_volatile(answer: bytes) -> dict[int, list[str]]:
    """The functions that `volatile_query` found and that are not known to be harmless, by statement."""
    found: dict[int, list[str]] = {}
    for number, schema, name in json.loads(answer.decode(errors="replace")):
        if not is_harmless(name):
            found.setdefault(number, []).append(name if schema == "pg_catalog" else f"{schema}.{name}")
    return {number: sorted(set(names)) for number, names in found.items()}


def _name(name: str | None) -> str:
    return "NULL" if name is None else f"{literal(name)}::pg_catalog.name"


_QUERY = """\
WITH RECURSIVE wanted(number, schema, name, arguments) AS (VALUES {calls}),
operators(number, name) AS (VALUES {operators}),
relations(number, schema, name) AS (VALUES {relations}),
rules(class, id, relation) AS (
  SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid, oid, ev_class
  FROM pg_catalog.pg_rewrite
  UNION ALL
  SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid, oid, polrelid
  FROM pg_catalog.pg_policy),
reached(number, relation) AS (
  SELECT relations.number, pg_class.oid
  FROM relations
  JOIN pg_catalog.pg_class ON pg_class.relname OPERATOR(pg_catalog.=) relations.name
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) pg_class.relnamespace
  WHERE CASE WHEN relations.schema IS NULL THEN pg_catalog.pg_table_is_visible(pg_class.oid)
    ELSE pg_namespace.nspname OPERATOR(pg_catalog.=) relations.schema END
  UNION
  SELECT reached.number, pg_depend.refobjid
  FROM reached
  JOIN rules ON rules.relation OPERATOR(pg_catalog.=) reached.relation
  JOIN pg_catalog.pg_depend ON pg_depend.classid OPERATOR(pg_catalog.=) rules.class
    AND pg_depend.objid OPERATOR(pg_catalog.=) rules.id
    AND pg_depend.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    AND pg_depend.refobjid OPERATOR(pg_catalog.<>) reached.relation),
called(number, id) AS (
  SELECT wanted.number, pg_proc.oid
  FROM wanted
  JOIN pg_catalog.pg_proc ON pg_proc.proname OPERATOR(pg_catalog.=) wanted.name
  JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) pg_proc.pronamespace
  WHERE CASE WHEN wanted.schema IS NULL THEN pg_catalog.pg_function_is_visible(pg_proc.oid)
    ELSE pg_namespace.nspname OPERATOR(pg_catalog.=) wanted.schema END
    AND (pg_proc.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
      OR wanted.arguments OPERATOR(pg_catalog.<=) pg_proc.pronargs
        AND wanted.arguments OPERATOR(pg_catalog.>=)
          (pg_proc.pronargs OPERATOR(pg_catalog.-) pg_proc.pronargdefaults))
  UNION
  SELECT operators.number, pg_operator.oprcode::pg_catalog.oid
  FROM operators
  JOIN pg_catalog.pg_operator ON pg_operator.oprname OPERATOR(pg_catalog.=) operators.name
  WHERE pg_catalog.pg_operator_is_visible(pg_operator.oid)
  UNION
  SELECT reached.number, pg_depend.refobjid
  FROM reached
  JOIN rules ON rules.relation OPERATOR(pg_catalog.=) reached.relation
  JOIN pg_catalog.pg_depend ON pg_depend.classid OPERATOR(pg_catalog.=) rules.class
    AND pg_depend.objid OPERATOR(pg_catalog.=) rules.id
    AND pg_depend.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass)
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(
  called.number, pg_namespace.nspname, pg_proc.proname)), '[]'::pg_catalog.json)
FROM called
JOIN pg_catalog.pg_proc ON pg_proc.oid OPERATOR(pg_catalog.=) called.id
JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) pg_proc.pronamespace
WHERE pg_proc.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog."char" """

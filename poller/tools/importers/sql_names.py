"""Names in a statement: of the columns of its result, of the columns it reads, and of its relations."""

from __future__ import annotations

import re
from typing import Any

import pgparse

from poller.config.queries.sql_ast import nodes
from poller.tools.importers.sql_projection import identifier

_UNNAMED = "?column?"
_NAMES = {
    "CoalesceExpr": "coalesce", "A_ArrayExpr": "array", "RowExpr": "row", "GroupingFunc": "grouping",
    "XmlSerialize": "xmlserialize", "JsonParseExpr": "json", "JsonScalarExpr": "json_scalar",
    "JsonSerializeExpr": "json_serialize", "JsonObjectConstructor": "json_object",
    "JsonArrayConstructor": "json_array", "JsonArrayQueryConstructor": "json_array",
    "JsonObjectAgg": "json_objectagg", "JsonArrayAgg": "json_arrayagg",
}  # fmt: skip


def names_in(expression: str) -> set[str]:
    """Return the names of the columns that an SQL expression reads; empty if it is invalid."""
    try:
        tree = pgparse.parse(f"SELECT {expression}")
    except (pgparse.PGQueryError, RecursionError):
        return set()
    return {last_name(column["fields"]) for column in nodes(tree, "ColumnRef")}


def relations_of(sql: str, schema: str) -> list[str]:
    """Return the relations in `sql` with an explicit `schema`, in the form of `requires: columns:`."""
    try:
        tree = pgparse.parse(sql)
    except (pgparse.PGQueryError, RecursionError):
        return []
    return sorted(
        {
            f"{_quoted(schema)}.{_quoted(relation['relname'])}"
            for relation in nodes(tree, "RangeVar")
            if relation.get("schemaname") == schema
        }
    )


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else identifier(name)


def default_name(value: Any) -> tuple[str, bool]:
    """Return PostgreSQL's default name of a column, and whether a cast keeps it.

    Source: src/backend/parser/parse_target.c, FigureColnameInternal.
    """
    ((node, inner),) = value.items() if len(value) == 1 else ((_UNNAMED, {}),)
    match node:
        case "ColumnRef":
            return last_name(inner["fields"]), True
        case "FuncCall":
            return last_name(inner["funcname"]), True
        case "TypeCast":
            name, strong = default_name(inner["arg"])
            return (name, True) if strong else (last_name(inner["typeName"]["names"]), False)
        case "CaseExpr":
            name, strong = default_name(inner.get("defresult", {}))
            return (name, True) if strong else ("case", False)
        case "MinMaxExpr":
            return ("least" if inner.get("op") == "IS_LEAST" else "greatest"), True
        case "A_Indirection":
            field = last_name(inner["indirection"])
            return (field, True) if field != _UNNAMED else default_name(inner["arg"])
        case "CollateClause":
            return default_name(inner["arg"])
        case "SubLink":
            return _sublink_name(inner)
        case "SQLValueFunction":
            return str(inner["op"]).removeprefix("SVFOP_").lower().removesuffix("_n"), True
        case "A_Expr" if inner.get("kind") == "AEXPR_NULLIF":
            return "nullif", True
        case "XmlExpr" if inner.get("op") != "IS_DOCUMENT":
            return str(inner["op"]).removeprefix("IS_").lower(), True
        case "JsonFuncExpr":
            return str(inner["op"]).removesuffix("_OP").lower(), True
    return _NAMES.get(node, _UNNAMED), node in _NAMES


def _sublink_name(link: Any) -> tuple[str, bool]:
    kind = link.get("subLinkType")
    if kind == "EXPR_SUBLINK":
        select = link["subselect"]["SelectStmt"]
        while "larg" in select:
            select = select["larg"]
        if "valuesLists" in select:
            return "column1", True
        target = select["targetList"][0]["ResTarget"]
        return (target["name"], True) if "name" in target else default_name(target["val"])
    name = {"EXISTS_SUBLINK": "exists", "ARRAY_SUBLINK": "array"}.get(str(kind))
    return (name, True) if name else (_UNNAMED, False)


def last_name(names: Any) -> str:
    """Return the last part of a qualified name; `?column?` if it is a star."""
    strings = [name["String"].get("sval", "") for name in names if "String" in name]
    return str(strings[-1]) if strings else _UNNAMED

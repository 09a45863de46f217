"""Say which columns a statement has, and which of them are certainly no numbers, without a database."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pgparse

from poller.importing.projection import identifier

Kind = Literal["text", "time", "boolean"]

_TYPES: dict[str, Kind] = {
    **dict.fromkeys(("text", "varchar", "name", "bpchar", "char", "json", "jsonb", "uuid", "inet"), "text"),
    **dict.fromkeys(("regclass", "regtype", "regproc", "pg_lsn", "xml", "bytea", "cidr"), "text"),
    **dict.fromkeys(("timestamptz", "timestamp", "date", "time", "timetz", "interval"), "time"),
    "bool": "boolean",
}
_FUNCTIONS: dict[str, Kind] = {
    **dict.fromkeys(("now", "clock_timestamp", "statement_timestamp", "age", "date_trunc"), "time"),
    **dict.fromkeys(("pg_postmaster_start_time", "pg_conf_load_time", "to_timestamp"), "time"),
    **dict.fromkeys(("quote_ident", "quote_literal", "format", "current_setting", "version"), "text"),
    **dict.fromkeys(("concat", "concat_ws", "string_agg", "to_char", "md5", "split_part", "left"), "text"),
    **dict.fromkeys(("lower", "upper", "substr", "substring", "regexp_replace", "right"), "text"),
    **dict.fromkeys(("current_database", "pg_get_expr", "pg_get_userbyid", "inet_server_addr"), "text"),
    **dict.fromkeys(("pg_is_in_recovery", "has_table_privilege", "bool_or", "bool_and"), "boolean"),
}
_OF_STATISTICS = {
    "backend_start", "xact_start", "query_start", "state_change", "reply_time", "last_msg_send_time",
    "last_msg_receipt_time", "latest_end_time", "last_archived_time", "last_failed_time", "last_seq_scan",
    "last_idx_scan", "last_vacuum", "last_autovacuum", "last_analyze", "last_autoanalyze", "stats_reset",
    "checksum_last_failure", "stats_since", "minmax_stats_since",
}  # fmt: skip
"""The points in time of the views pg_stat_* (PostgreSQL manual, "The Cumulative Statistics System")."""
_COMPARISONS = {"=", "<>", "!=", "<", ">", "<=", ">=", "~", "~*", "!~", "~~", "!~~"}
_UNNAMED = "?column?"
_NAMES = {"CoalesceExpr": "coalesce", "A_ArrayExpr": "array", "RowExpr": "row", "GroupingFunc": "grouping"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result."""

    name: str
    kind: Kind | None = None
    """What it holds where that is certainly no number."""


def columns_of(sql: str) -> list[Column] | None:
    """The columns of the one statement `sql`, as PostgreSQL names them; None where only a server knows."""
    try:
        ((kind, body),) = pgparse.parse(sql)[0]["stmt"].items()
    except (pgparse.PGQueryError, RecursionError, LookupError, ValueError):
        return None
    return _of_select(body, {}) if kind == "SelectStmt" else None


def kinds_of(sql: str) -> dict[str, Kind]:
    """By name, the columns of the one statement `sql` that are certainly no numbers, as far as it tells."""
    columns = columns_of(sql) or []
    double = twice(columns)
    return {one.name: one.kind for one in columns if one.kind is not None and one.name not in double}


def number(name: str, kind: Kind | None) -> str:
    """The SQL that makes a number of a column, as Go's database tools do; empty where it needs none."""
    if kind == "time":
        return f"extract(epoch FROM {identifier(name)})"
    return f"{identifier(name)}::int" if kind == "boolean" else ""


def twice(columns: Sequence[Column]) -> set[str]:
    """The names that several of `columns` have, so that none of them can be meant."""
    return {name for name, count in Counter(column.name for column in columns).items() if count > 1}


def relations_of(sql: str, schema: str) -> list[str]:
    """The relations that `sql` names with that `schema`, as `requires: columns:` has them."""
    try:
        pending: list[Any] = [pgparse.parse(sql)]
    except (pgparse.PGQueryError, RecursionError):
        return []
    found: dict[str, None] = {}
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if (inner := node.get("RangeVar")) and inner.get("schemaname") == schema:
                found[f"{_quoted(schema)}.{_quoted(inner['relname'])}"] = None
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return sorted(found)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else identifier(name)


def _of_select(select: Any, known: Mapping[str, Any]) -> list[Column] | None:
    if "larg" in select:
        return _of_select(select["larg"], known)
    if "valuesLists" in select:
        return [Column(f"column{n}") for n in range(1, len(select["valuesLists"][0]["List"]["items"]) + 1)]
    tables = {
        one["CommonTableExpr"]["ctename"]: one["CommonTableExpr"]["ctequery"].get("SelectStmt")
        for one in select.get("withClause", {}).get("ctes", [])
    }
    known = {**known, **tables}
    found: list[Column] = []
    for target in select.get("targetList", []):
        inner = target["ResTarget"]
        value = inner.get("val", {})
        if "A_Star" in str(value.get("ColumnRef", "")):
            if (within := _of_star(select, value, known)) is None:
                return None
            found += within
        else:
            timed = _OF_STATISTICS if "'relname': 'pg_stat_" in str(select.get("fromClause")) else frozenset()
            found.append(Column(inner.get("name") or _named(value), _kind(value, timed)))
    return found


def _of_star(select: Any, value: Any, known: Mapping[str, Any]) -> list[Column] | None:
    """A star stands for all columns of the one thing that is read from, if that says which it has."""
    sources = select.get("fromClause", [])
    if len(sources) != 1 or len(value["ColumnRef"]["fields"]) > 2:
        return None
    source = sources[0]
    if "RangeSubselect" in source and "colnames" not in source["RangeSubselect"].get("alias", {}):
        return _of_select(source["RangeSubselect"]["subquery"]["SelectStmt"], known)
    name = source.get("RangeVar", {}).get("relname")
    inner = known.get(name) if "schemaname" not in source.get("RangeVar", {}) else None
    without = {key: item for key, item in known.items() if key != name}  # one that names itself
    return _of_select(inner, without) if inner else None


def _named(value: Any) -> str:
    """The name that PostgreSQL gives a column without one (src/backend/parser/parse_target.c)."""
    ((node, inner),) = value.items() if len(value) == 1 else ((_UNNAMED, {}),)
    match node:
        case "ColumnRef":
            return _last(inner["fields"])
        case "FuncCall":
            return _last(inner["funcname"])
        case "TypeCast":
            within = _named(inner["arg"])
            return within if within != _UNNAMED else _last(inner["typeName"]["names"])
        case "CaseExpr":
            within = _named(inner["defresult"]) if "defresult" in inner else _UNNAMED
            return within if within != _UNNAMED else "case"
        case "MinMaxExpr":
            return "least" if inner.get("op") == "IS_LEAST" else "greatest"
        case "A_Indirection" | "CollateClause":
            return _named(inner["arg"])
        case "SubLink":
            return _of_sublink(inner)
        case "SQLValueFunction":
            return str(inner["op"]).removeprefix("SVFOP_").lower().removesuffix("_n")
        case "A_Expr" if inner.get("kind") == "AEXPR_NULLIF":
            return "nullif"
    return _NAMES.get(node, _UNNAMED)


def _of_sublink(link: Any) -> str:
    kind = link.get("subLinkType")
    if kind == "EXPR_SUBLINK":
        columns = _of_select(link["subselect"]["SelectStmt"], {})
        return columns[0].name if columns else _UNNAMED
    return {"EXISTS_SUBLINK": "exists", "ARRAY_SUBLINK": "array"}.get(str(kind), _UNNAMED)


def _kind(value: Any, timed: Container[str] = ()) -> Kind | None:
    """What `value` certainly is; `timed` are the names of columns that are points in time."""
    ((node, inner),) = value.items() if len(value) == 1 else ((_UNNAMED, {}),)
    match node:
        case "TypeCast":
            return _TYPES.get(_last(inner["typeName"]["names"]))
        case "A_Const":
            return "text" if "sval" in inner else "boolean" if "boolval" in inner else None
        case "BoolExpr" | "NullTest" | "BooleanTest":
            return "boolean"
        case "SubLink" if inner.get("subLinkType") in ("EXISTS_SUBLINK", "ANY_SUBLINK", "ALL_SUBLINK"):
            return "boolean"
        case "A_Expr":
            sign = _last(inner.get("name", []))
            return "text" if sign == "||" else "boolean" if sign in _COMPARISONS else None
        case "ColumnRef":
            return "time" if _last(inner["fields"]) in timed else None
        case "FuncCall" if _last(inner["funcname"]) in ("min", "max") and inner.get("args"):
            return _kind(inner["args"][0], timed)
        case "FuncCall":
            return _FUNCTIONS.get(_last(inner["funcname"]))
        case "CoalesceExpr" | "MinMaxExpr":
            return _kind(inner["args"][0], timed)
        case "CaseExpr":
            return _kind(inner["args"][0]["CaseWhen"]["result"], timed)
        case "SQLValueFunction":
            return "time" if "TIME" in inner["op"] or "DATE" in inner["op"] else "text"
    return None


def _last(names: Any) -> str:
    strings = [one["String"].get("sval", "") for one in names if "String" in one]
    return str(strings[-1]) if strings else _UNNAMED

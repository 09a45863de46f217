"""Names and types of the columns of a statement, without a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pgparse

from poller.tools.importers import sql_types
from poller.tools.importers.sql_names import default_name, last_name
from poller.tools.importers.sql_projection import identifier
from poller.tools.importers.sql_types import Kind, SqlType

_VALUE_FUNCTIONS: dict[str, SqlType] = {
    "CURRENT_DATE": "date",
    **dict.fromkeys(("CURRENT_TIME", "CURRENT_TIME_N", "LOCALTIME", "LOCALTIME_N"), "clock"),
    **dict.fromkeys(("CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP_N"), "timestamp"),
    **dict.fromkeys(("LOCALTIMESTAMP", "LOCALTIMESTAMP_N"), "timestamp"),
}
"""Types of SQL value functions; the other functions return names."""


@dataclass(frozen=True, slots=True)
class SqlColumn:
    """A column of a result."""

    name: str
    type: SqlType | None = None

    @property
    def kind(self) -> Kind | None:
        """Kind of the column's values, if they are certainly not numbers."""
        return sql_types.kind_of(self.type)


SqlColumns = tuple[SqlColumn, ...]


@dataclass(frozen=True, slots=True)
class _Relation:
    """One table, function or subquery that an expression can refer to."""

    name: str
    columns: SqlColumns
    complete: bool = True
    """Whether `columns` contains all of its columns."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """Tables and columns that names in a statement can refer to."""

    ctes: Mapping[str, SqlColumns | None]
    levels: tuple[tuple[_Relation, ...], ...] = ()
    """FROM items, of the statement itself first, then of each enclosing statement."""

    def inside(self, items: Sequence[_Relation]) -> _Scope:
        return replace(self, levels=(tuple(items), *self.levels))


@lru_cache(maxsize=1024)
def columns_of(sql: str) -> SqlColumns | None:
    """Return the columns of the single statement `sql` by PostgreSQL's rules; None if a server is needed."""
    try:
        ((kind, body),) = pgparse.parse(sql)[0]["stmt"].items()
        return _of_query(body, _Scope({})) if kind == "SelectStmt" else None
    except (pgparse.PGQueryError, RecursionError, LookupError, ValueError):
        return None


def kinds_of(sql: str) -> dict[str, Kind]:
    """Return the kinds, by name, of the columns of the statement `sql` that are certainly not numbers."""
    columns = columns_of(sql) or ()
    double = duplicate_names(columns)
    return {
        column.name: column.kind
        for column in columns
        if column.kind is not None and column.name not in double
    }


def number(name: str, kind: Kind | None) -> str:
    """Return SQL that converts a column to a number, as Go's database tools do; empty if unnecessary."""
    if kind == "time":
        return f"extract(epoch FROM {identifier(name)})"
    return f"{identifier(name)}::int" if kind == "boolean" else ""


def duplicate_names(columns: Sequence[SqlColumn]) -> set[str]:
    """Return the names that several of `columns` have, which makes references to them ambiguous."""
    return {name for name, count in Counter(column.name for column in columns).items() if count > 1}


# --- statements -------------------------------------------------------------------------------------------


def _of_query(select: Any, scope: _Scope) -> SqlColumns | None:
    """Return the columns of a statement outside of a UNION, where an untyped literal is a text."""
    columns = _of_select(select, scope)
    if columns is None:
        return None
    return tuple(replace(column, type="text") if column.type == "literal" else column for column in columns)


def _of_select(select: Any, scope: _Scope) -> SqlColumns | None:
    scope = _with_ctes(select.get("withClause", {}), scope)
    if "larg" in select:
        return _of_union(_of_select(select["larg"], scope), _of_select(select["rarg"], scope))
    if "valuesLists" in select:
        rows = [row["List"]["items"] for row in select["valuesLists"]]
        types = [[_type(value, scope) for value in column] for column in zip(*rows, strict=True)]
        return tuple(SqlColumn(f"column{n}", sql_types.common(members)) for n, members in enumerate(types, 1))
    starred: list[SqlColumns | None] = []
    items: list[_Relation] = []
    for source in select.get("fromClause", []):
        columns, named = _of_source(source, scope, items)
        starred.append(columns)
        items += named
    scope = scope.inside(items)
    result: list[SqlColumn] = []
    for target in select.get("targetList", []):
        inner = target["ResTarget"]
        value = inner.get("val", {})
        if "A_Star" not in str(_path(value)):
            result.append(SqlColumn(inner.get("name") or default_name(value)[0], _type(value, scope)))
            continue
        for columns in _of_star(value, starred, items):
            if columns is None:
                return None
            result += columns
    return tuple(result)


def _path(value: Any) -> Any:
    """Return the parts of a name, or the suffix of an expression in parentheses."""
    return value.get("ColumnRef", {}).get("fields") or value.get("A_Indirection", {}).get("indirection")


def _of_star(
    value: Any, starred: Sequence[SqlColumns | None], items: Sequence[_Relation]
) -> Sequence[SqlColumns | None]:
    """Return the columns that a star expands to; None if a server is needed."""
    fields = value.get("ColumnRef", {}).get("fields", [])
    if len(fields) == 1:
        return starred
    named = [item for item in items if len(fields) == 2 and item.name == last_name(fields[:1])]
    return [named[0].columns if len(named) == 1 and named[0].complete else None]


def _of_union(left: SqlColumns | None, right: SqlColumns | None) -> SqlColumns | None:
    if left is None:
        return None
    if right is None or len(right) != len(left):
        right = tuple(SqlColumn("") for _ in left)
    return tuple(
        SqlColumn(column.name, sql_types.common((column.type, other.type)))
        for column, other in zip(left, right, strict=True)
    )


def _with_ctes(clause: Any, scope: _Scope) -> _Scope:
    ctes = [item["CommonTableExpr"] for item in clause.get("ctes", [])]
    visible = dict(scope.ctes)
    if clause.get("recursive"):
        # A CTE may refer to itself and to later ones, which hide outer CTEs of the same name.
        visible |= {cte["ctename"]: None for cte in ctes}
    for cte in ctes:
        query = cte["ctequery"].get("SelectStmt")
        inside = replace(scope, ctes=visible)
        if query is None or "search_clause" in cte or "cycle_clause" in cte:
            columns = None
        elif clause.get("recursive") and "larg" in query:
            columns = _of_recursive(query, cte, inside)
        else:
            columns = _of_query(query, inside)
        visible = {**visible, cte["ctename"]: _renamed(columns, cte.get("aliascolnames"))}
    return replace(scope, ctes=visible)


def _of_recursive(query: Any, cte: Any, scope: _Scope) -> SqlColumns | None:
    """Return the columns of a recursive CTE; the part before UNION determines the types of the other part."""
    scope = _with_ctes(query.get("withClause", {}), scope)
    first = _of_query(query["larg"], scope)
    own = {cte["ctename"]: _renamed(first, cte.get("aliascolnames"))}
    return _of_union(first, _of_query(query["rarg"], replace(scope, ctes={**scope.ctes, **own})))


# --- FROM -------------------------------------------------------------------------------------------------


def _of_source(
    node: Any, scope: _Scope, before: Sequence[_Relation]
) -> tuple[SqlColumns | None, list[_Relation]]:
    """Return the star expansion and the FROM items of a source; `before` are the items to its left."""
    ((kind, inner),) = node.items()
    alias = inner.get("alias", {})
    name, renamed = alias.get("aliasname", ""), alias.get("colnames")
    if kind == "JoinExpr":
        return _of_join(inner, scope, before)
    if kind == "RangeTableSample":
        return _of_source(inner["relation"], scope, before)
    columns: SqlColumns | None = None
    partial: SqlColumns = ()
    if kind == "RangeVar":
        name = name or inner["relname"]
        schema = inner.get("schemaname", "")
        if not schema and inner["relname"] in scope.ctes:
            columns = scope.ctes[inner["relname"]]
        elif not renamed and schema in ("", "pg_catalog"):
            partial = tuple(
                SqlColumn(*item) for item in sql_types.RELATIONS.get(inner["relname"], {}).items()
            )
    elif kind == "RangeSubselect":
        outer = scope.inside(before) if inner.get("lateral") else scope
        columns = _of_query(inner["subquery"]["SelectStmt"], outer)
    elif kind == "RangeFunction":
        columns = _of_functions(inner, name, scope.inside(before))
        name = name or default_name(inner["functions"][0]["List"]["items"][0])[0]
    columns = _renamed(columns, renamed)
    return columns, [_Relation(name, partial if columns is None else columns, columns is not None)]


def _of_functions(node: Any, alias: str, scope: _Scope) -> SqlColumns | None:
    """Return the columns of functions in FROM; None if one of them may return a row type."""
    result: list[SqlColumn] = []
    for function in node["functions"]:
        call, *defined = function["List"]["items"]
        definitions = node.get("coldeflist") or [
            column for item in defined if "List" in item for column in item["List"]["items"]
        ]
        if definitions:
            columns = [column["ColumnDef"] for column in definitions]
            result += [SqlColumn(column["colname"], _of_type_name(column["typeName"])) for column in columns]
        elif (type_ := _type(call, scope)) is not None:
            name = alias if alias and len(node["functions"]) == 1 else default_name(call)[0]
            result.append(SqlColumn(name, type_))
        else:
            return None
    return (*result, SqlColumn("ordinality", "number")) if node.get("ordinality") else tuple(result)


def _of_join(
    join: Any, scope: _Scope, before: Sequence[_Relation]
) -> tuple[SqlColumns | None, list[_Relation]]:
    left, left_items = _of_source(join["larg"], scope, before)
    right, right_items = _of_source(join["rarg"], scope, (*before, *left_items))
    merged = [item["String"]["sval"] for item in join.get("usingClause", [])]
    columns: SqlColumns | None = None
    if left is not None and right is not None and not join.get("isNatural"):
        both = [
            SqlColumn(name, _of_column(name, (_Relation("", left), _Relation("", right)))) for name in merged
        ]
        columns = (*both, *(column for column in (*left, *right) if column.name not in merged))
    items = [*left_items, *right_items]
    if using := join.get("join_using_alias"):
        items.append(_Relation(using["aliasname"], (), complete=False))
    if alias := join.get("alias"):
        columns = _renamed(columns, alias.get("colnames"))
        items = [_Relation(alias["aliasname"], columns or (), columns is not None)]
    return columns, items


def _renamed(columns: SqlColumns | None, names: Any) -> SqlColumns | None:
    if columns is None or not names:
        return columns
    aliases = [name["String"]["sval"] for name in names]
    return (*(replace(column, name=name) for column, name in zip(columns, aliases)), *columns[len(aliases) :])  # noqa: B905


# --- expressions ------------------------------------------------------------------------------------------


def _type(value: Any, scope: _Scope) -> SqlType | None:
    """Return the type of `value` if it is certain, else None."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((node, inner),) = value.items()
    match node:
        case "A_Const":
            return _of_constant(inner)
        case "TypeCast":
            return _of_type_name(inner["typeName"])
        case "ColumnRef":
            return _of_reference(
                [field["String"]["sval"] for field in inner["fields"] if "String" in field], scope
            )
        case "BoolExpr" | "NullTest" | "BooleanTest":
            return "boolean"
        case "SubLink":
            return _of_subquery(inner, scope)
        case "A_Expr":
            return _of_expression(inner, scope)
        case "FuncCall":
            name = _of_catalog(inner["funcname"])
            arguments = [_type(argument, scope) for argument in inner.get("args", [])]
            return sql_types.infer_call(name, arguments) if name else None
        case "CoalesceExpr" | "MinMaxExpr":
            return sql_types.common([_type(argument, scope) for argument in inner["args"]])
        case "CaseExpr":
            results = [branch["CaseWhen"]["result"] for branch in inner["args"]]
            results += [inner["defresult"]] if "defresult" in inner else []
            return sql_types.common([_type(result, scope) for result in results])
        case "SQLValueFunction":
            return _VALUE_FUNCTIONS.get(inner["op"].removeprefix("SVFOP_"), "text")
        case "CollateClause":
            return _type(inner["arg"], scope)
    return None


def _of_constant(constant: Any) -> SqlType:
    if "ival" in constant or "fval" in constant:
        return "number"
    return "boolean" if "boolval" in constant else "other" if "bsval" in constant else "literal"


def _of_catalog(names: Any) -> str:
    """Return the name of a type, function or operator in pg_catalog; empty for another schema."""
    *schema, name = [item["String"]["sval"] for item in names]
    return name if schema in ([], ["pg_catalog"]) else ""


def _of_type_name(type_name: Any) -> SqlType | None:
    if "arrayBounds" in type_name or "names" not in type_name:
        return None
    return sql_types.TYPES.get(_of_catalog(type_name["names"]))


def _of_subquery(link: Any, scope: _Scope) -> SqlType | None:
    if link.get("subLinkType") in ("EXISTS_SUBLINK", "ANY_SUBLINK", "ALL_SUBLINK"):
        return "boolean"
    if link.get("subLinkType") != "EXPR_SUBLINK":
        return None
    columns = _of_query(link["subselect"]["SelectStmt"], scope)
    return columns[0].type if columns else None


def _of_expression(expression: Any, scope: _Scope) -> SqlType | None:
    form = expression["kind"]
    if form not in ("AEXPR_OP", "AEXPR_NULLIF"):
        return "boolean"  # IN, LIKE, BETWEEN, IS DISTINCT FROM, ANY
    right = _type(expression.get("rexpr"), scope)
    if form == "AEXPR_NULLIF":
        left = _type(expression["lexpr"], scope)
        return right if left == "literal" else left
    if not (sign := _of_catalog(expression["name"])):
        return None
    if "lexpr" not in expression:
        return sql_types.infer_prefix(sign, right)
    return sql_types.infer_operator(sign, _type(expression["lexpr"], scope), right)


def _of_reference(fields: Sequence[str], scope: _Scope) -> SqlType | None:
    """Return the type of the referenced column, from the innermost statement that has it."""
    *qualifiers, name = fields or [""]
    for items in scope.levels:
        if qualifiers:
            named = [item for item in items if item.name == qualifiers[-1]]
            if named:
                return _of_column(name, named) if len(named) == 1 else None
        else:
            if any(column.name == name for item in items for column in item.columns):
                return _of_column(name, items)
            if not all(item.complete for item in items):
                return None  # an item with unknown columns may contain it
    return None


def _of_column(name: str, items: Sequence[_Relation]) -> SqlType | None:
    """Return the type of the column `name`; several items have it if USING merged them."""
    result: list[SqlType | None] = []
    for item in items:
        types = [column.type for column in item.columns if column.name == name]
        if len(types) > 1:
            return None  # ambiguous
        result += types
    return sql_types.common(result) if result else None

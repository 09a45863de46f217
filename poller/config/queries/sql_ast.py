"""Facts from a statement's parse tree: result columns, relations, functions, operators and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pgparse

from poller.config.queries.sql_functions import Call, calls, walk

_COMPARES = {"=", "<", ">", "<=", ">="}


def grouped_columns(sql: str) -> set[str]:
    """Return the result columns that `sql` groups by."""
    body = _select(sql)
    targets = [item["ResTarget"] for item in body.get("targetList", [])]
    names = [output_name(target) for target in targets]
    keys: set[str] = set()
    for clause in body.get("groupClause", []):
        number = clause.get("A_Const", {}).get("ival", {}).get("ival")
        if number is not None and 0 < number <= len(names):
            keys.add(names[number - 1])
        # GROUP BY accepts an output name or the expression itself.
        keys.update(
            name
            for name, target in zip(names, targets, strict=True)
            if _column(clause) == name or are_equal(clause, target["val"])
        )
    return keys - {""}


def parameter_columns(sql: str) -> dict[str, int]:
    """Return the columns of `sql` that are only a placeholder `$n`, perhaps with a cast, and its number."""
    columns: dict[str, int] = {}
    for item in _select(sql).get("targetList", []):
        value = item["ResTarget"]["val"]
        while "TypeCast" in value:
            value = value["TypeCast"]["arg"]
        if "ParamRef" in value:
            columns[str(item["ResTarget"].get("name", ""))] = value["ParamRef"]["number"]
    return columns


def counted_columns(sql: str) -> set[str]:
    """Return the result columns of `sql` that are a count of rows."""
    targets = [item["ResTarget"] for item in _select(sql).get("targetList", [])]
    return {output_name(target) for target in targets if _function(target["val"]) == "count"}


def first_relation(sql: str) -> str | None:
    """Return the name of the first relation that `sql` reads, without its schema; None if it reads none."""
    item: dict[str, Any] = next(iter(_select(sql).get("fromClause", [])), {})
    while "JoinExpr" in item:
        item = item["JoinExpr"]["larg"]
    return str(item["RangeVar"]["relname"]) if "RangeVar" in item else None


def counts_a_whole_relation(sql: str) -> bool:
    """Return whether `sql` is just `SELECT count(*) FROM relation`."""
    body = _select(sql)
    keys = {"targetList", "fromClause", "limitOption", "op"}
    single = len(body.get("targetList", [])) == 1 and len(body.get("fromClause", [])) == 1
    if not single or not body.keys() <= keys or "RangeVar" not in body["fromClause"][0]:
        return False
    value = body["targetList"][0]["ResTarget"]["val"]
    return _function(value) == "count" and value["FuncCall"].get("agg_star", False) is True


def compared_columns(condition: str) -> list[str]:
    """Return the columns by which an index could find the rows of an SQL condition.

    These are the columns in comparisons with an expression without columns, if all comparisons must hold.
    """
    columns: list[str] = []
    pending = [_select(f"SELECT WHERE {condition}").get("whereClause", {})]
    while pending:
        node = pending.pop(0)
        if node.get("BoolExpr", {}).get("boolop") == "AND_EXPR":
            pending.extend(node["BoolExpr"]["args"])
        elif (expression := node.get("A_Expr")) and _operator(expression) in _COMPARES:
            lhs, rhs = expression.get("lexpr", {}), expression.get("rexpr", {})
            for operand, other in ((lhs, rhs), (rhs, lhs)):
                name = _column(operand)
                if name and name not in columns and not any(True for _ in nodes(other, "ColumnRef")):
                    columns.append(name)
    return columns


def without_end(sql: str) -> str:
    """Return `sql` without its semicolon and the text after it; empty if it contains only comments.

    Text that is not a single statement is returned unchanged.
    """
    try:
        statements = pgparse.parse(sql)
    except (pgparse.PGQueryError, RecursionError, UnicodeError):
        return sql
    if not statements:
        return ""
    if len(statements) != 1 or "stmt_len" not in statements[0]:
        return sql
    end = statements[0].get("stmt_location", 0) + statements[0]["stmt_len"]
    return sql.encode()[:end].decode()


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier, quoted if it is not a plain word or is a keyword."""
    plain = name.isascii() and name.isidentifier() and name.islower()
    target = next(iter(_select(f"SELECT {name}").get("targetList", [])), None) if plain else None
    if target is not None and _column(target["ResTarget"]["val"]) == name:
        return name
    return '"' + name.replace('"', '""') + '"'


def called_functions(sql: str) -> list[Call]:
    """Return every function call in `sql`, at any depth."""
    return list(calls(statement(sql)))


def used_operators(sql: str) -> set[tuple[str | None, str]]:
    """Return schema (None: omitted) and name of all operators in `sql`, also implied ones."""
    tree = statement(sql)
    operators: set[tuple[str | None, str]] = set()
    for kind, key in (("A_Expr", "name"), ("SubLink", "operName"), ("SortBy", "useOp")):
        for node in nodes(tree, kind):
            names = _names(node.get(key, []))
            if names:
                operators.add((names[-2] if len(names) > 1 else None, names[-1]))
    # IN (SELECT ...), CASE with an operand, USING and BETWEEN imply operators.
    implied = {"=", "<", ">", "<=", ">="} if any("BETWEEN" in name for _, name in operators) else {"="}
    return operators | {(None, name) for name in implied}


def named_types(sql: str) -> set[tuple[str | None, str]]:
    """Return schema (None: omitted) and name of every type in `sql`; `t(x)` may be a cast or a call."""
    tree = statement(sql)
    types = {
        (names[-2] if len(names) > 1 else None, names[-1])
        for node in nodes(tree, "typeName")
        if (names := _names(node.get("names", [])))
    }
    return types | {(call.schema, call.name) for call in calls(tree) if call.arguments == 1}


def read_relations(sql: str) -> set[tuple[str | None, str]]:
    """Return schema (None: omitted) and name of every relation in `sql` at any depth, except WITH queries."""
    relations: set[tuple[str | None, str]] = set()
    pending: list[tuple[Any, frozenset[str]]] = [(statement(sql), frozenset())]
    while pending:
        node, visible = pending.pop()
        if isinstance(node, list):
            pending.extend((item, visible) for item in node)
        elif isinstance(node, dict):
            if relation := node.get("RangeVar"):
                schema, name = relation.get("schemaname"), str(relation.get("relname"))
                if schema is not None or name not in visible:
                    relations.add((schema, name))
            within = node.get("withClause", {})
            ctes = [cte["CommonTableExpr"] for cte in within.get("ctes", [])]
            all_names = visible | {str(cte.get("ctename")) for cte in ctes}
            # A WITH query can read those before it, and with RECURSIVE all of them.
            visible_ctes = all_names if within.get("recursive") else visible
            for cte in ctes:
                pending.append((cte.get("ctequery"), visible_ctes))
                visible_ctes |= {str(cte.get("ctename"))}
            pending.extend((value, all_names) for key, value in node.items() if key != "withClause")
    return relations


def statement(sql: str) -> dict[str, Any]:
    """Return the parse tree of the first statement in `sql`; empty if it is not valid SQL."""
    return next(iter(statements(sql)), {})


def statements(sql: str) -> list[dict[str, Any]]:
    """Return the parse tree of each statement in `sql`; empty if it is not valid SQL."""
    try:
        return [part["stmt"] for part in pgparse.parse(sql)]
    except (pgparse.PGQueryError, RecursionError, LookupError, ValueError):
        return []


def _select(sql: str) -> dict[str, Any]:
    """Return the body of a SELECT; empty for anything else."""
    body: dict[str, Any] = statement(sql).get("SelectStmt", {})
    return body


def output_name(target: dict[str, Any]) -> str:
    """Return the name of a result column (PostgreSQL manual, "Column Labels")."""
    value = target["val"]
    return str(target.get("name") or _column(value) or _function(value))


def truncated(sql: str, column: str) -> str | None:
    """Return the unit if `column` of the SELECT in `sql` is `date_trunc` of a time, the start of a bucket."""
    for node in _select(sql).get("targetList", []):
        target = node.get("ResTarget", {})
        if "val" in target and output_name(target) == column and _function(target["val"]) == "date_trunc":
            unit = target["val"]["FuncCall"].get("args", [{}])[0].get("A_Const", {}).get("sval", {})
            return str(unit["sval"]).lower() if "sval" in unit else None
    return None


def _column(node: dict[str, Any]) -> str:
    """Return the name of a column, with or without casts; empty for anything else."""
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    fields = node.get("ColumnRef", {}).get("fields", [])
    return str(fields[-1]["String"]["sval"]) if fields and "String" in fields[-1] else ""


def _function(node: dict[str, Any]) -> str:
    names = node.get("FuncCall", {}).get("funcname", [])
    return str(names[-1]["String"]["sval"]) if names else ""


def _operator(expression: dict[str, Any]) -> str:
    names = _names(expression.get("name", []))
    return names[-1] if names else ""


def _names(parts: list[Any]) -> list[str]:
    return [str(part["String"].get("sval", "")) for part in parts if "String" in part]


def are_equal(first: Any, second: Any) -> bool:
    """Return whether two parse trees differ at most in the locations of their parts in the text."""
    pending = [(first, second)]  # without recursion: `a+a+...` is nested once per operator
    while pending:
        left, right = pending.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            keys = left.keys() - {"location"}
            if keys != right.keys() - {"location"}:
                return False
            pending.extend((left[key], right[key]) for key in keys)
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pending.extend(zip(left, right, strict=True))
        elif type(left) is not type(right) or left != right:
            return False
    return True


def nodes(tree: Any, name: str) -> Iterator[Any]:
    """Return every node called `name` in a parse tree, at any depth."""
    return (node[name] for node in walk(tree) if name in node)

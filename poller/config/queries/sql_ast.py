"""Facts from a statement's parse tree: result columns, relations, functions, operators and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pgparse

from poller.config.queries.sql_functions import Call, calls

_COMPARES = {"=", "<", ">", "<=", ">="}


def grouped_columns(sql: str) -> set[str]:
    """The result columns that `sql` groups by."""
    body = _select(sql)
    targets = [one["ResTarget"] for one in body.get("targetList", [])]
    names = [output_name(target) for target in targets]
    keys: set[str] = set()
    for clause in body.get("groupClause", []):
        number = clause.get("A_Const", {}).get("ival", {}).get("ival")
        if number is not None and 0 < number <= len(names):
            keys.add(names[number - 1])
        # GROUP BY takes an output name, or the very expression.
        keys.update(
            name
            for name, target in zip(names, targets, strict=True)
            if _column(clause) == name or are_equal(clause, target["val"])
        )
    return keys - {""}


def counted_columns(sql: str) -> set[str]:
    """The result columns of `sql` that are a count of rows."""
    targets = [one["ResTarget"] for one in _select(sql).get("targetList", [])]
    return {output_name(target) for target in targets if _function(target["val"]) == "count"}


def first_relation(sql: str) -> str | None:
    """The name of the first relation that `sql` reads, without its schema; None where it reads none."""
    item: dict[str, Any] = next(iter(_select(sql).get("fromClause", [])), {})
    while "JoinExpr" in item:
        item = item["JoinExpr"]["larg"]
    return str(item["RangeVar"]["relname"]) if "RangeVar" in item else None


def counts_a_whole_relation(sql: str) -> bool:
    """Whether `sql` is `SELECT count(*) FROM relation` and no more."""
    body = _select(sql)
    known = {"targetList", "fromClause", "limitOption", "op"}
    one_each = len(body.get("targetList", [])) == 1 and len(body.get("fromClause", [])) == 1
    if not one_each or not body.keys() <= known or "RangeVar" not in body["fromClause"][0]:
        return False
    value = body["targetList"][0]["ResTarget"]["val"]
    return _function(value) == "count" and value["FuncCall"].get("agg_star", False) is True


def compared_columns(condition: str) -> list[str]:
    """The columns that each row must compare to something else by, in an SQL condition.

    Only what an index could find: comparisons of a column with something that has no column in it, all of
    which must hold.
    """
    found: list[str] = []
    pending = [_select(f"SELECT WHERE {condition}").get("whereClause", {})]
    while pending:
        node = pending.pop(0)
        if node.get("BoolExpr", {}).get("boolop") == "AND_EXPR":
            pending.extend(node["BoolExpr"]["args"])
        elif (expression := node.get("A_Expr")) and _operator(expression) in _COMPARES:
            left, right = expression.get("lexpr", {}), expression.get("rexpr", {})
            for one, other in ((left, right), (right, left)):
                name = _column(one)
                if name and name not in found and not any(True for _ in nodes(other, "ColumnRef")):
                    found.append(name)
    return found


def identifier(name: str) -> str:
    """`name` as SQL takes it: in quotes where it is no plain word, or a word of SQL's own."""
    plain = name.isascii() and name.isidentifier() and name.islower()
    target = next(iter(_select(f"SELECT {name}").get("targetList", [])), None) if plain else None
    if target is not None and _column(target["ResTarget"]["val"]) == name:
        return name
    return '"' + name.replace('"', '""') + '"'


def called_functions(sql: str) -> list[Call]:
    """Every function call in `sql`, at any depth."""
    return list(calls(statement(sql)))


def used_operators(sql: str) -> set[tuple[str | None, str]]:
    """Schema (None: not written) and name of all operators in `sql`, also where the grammar implies them."""
    tree = statement(sql)
    found: set[tuple[str | None, str]] = set()
    for kind, key in (("A_Expr", "name"), ("SubLink", "operName"), ("SortBy", "useOp")):
        for node in nodes(tree, kind):
            names = _names(node.get(key, []))
            if names:
                found.add((names[-2] if len(names) > 1 else None, names[-1]))
    # IN (SELECT ...), CASE with an operand, USING and BETWEEN.
    implied = {"=", "<", ">", "<=", ">="} if any("BETWEEN" in name for _, name in found) else {"="}
    return found | {(None, name) for name in implied}


def named_types(sql: str) -> set[tuple[str | None, str]]:
    """Schema (None: not written) and name of every type in `sql`; `t(x)` may be a cast as well as a call."""
    tree = statement(sql)
    found = {
        (names[-2] if len(names) > 1 else None, names[-1])
        for node in nodes(tree, "typeName")
        if (names := _names(node.get("names", [])))
    }
    return found | {(call.schema, call.name) for call in calls(tree) if call.arguments == 1}


def read_relations(sql: str) -> set[tuple[str | None, str]]:
    """Schema (None: not written) and name of every relation in `sql`, at any depth, WITH queries omitted."""
    found: set[tuple[str | None, str]] = set()
    pending: list[tuple[Any, frozenset[str]]] = [(statement(sql), frozenset())]
    while pending:
        node, visible = pending.pop()
        if isinstance(node, list):
            pending.extend((item, visible) for item in node)
        elif isinstance(node, dict):
            if relation := node.get("RangeVar"):
                schema, name = relation.get("schemaname"), str(relation.get("relname"))
                if schema is not None or name not in visible:
                    found.add((schema, name))
            within = node.get("withClause", {})
            ctes = [cte["CommonTableExpr"] for cte in within.get("ctes", [])]
            all_names = visible | {str(cte.get("ctename")) for cte in ctes}
            # A WITH query sees those before it, and with RECURSIVE all of them.
            seen = all_names if within.get("recursive") else visible
            for cte in ctes:
                pending.append((cte.get("ctequery"), seen))
                seen |= {str(cte.get("ctename"))}
            pending.extend((value, all_names) for key, value in node.items() if key != "withClause")
    return found


def statement(sql: str) -> dict[str, Any]:
    """The parse tree of the one statement in `sql`; empty if that is not SQL."""
    try:
        tree: dict[str, Any] = pgparse.parse(sql)[0]["stmt"]
    except (pgparse.PGQueryError, RecursionError, LookupError, ValueError):
        return {}
    return tree


def _select(sql: str) -> dict[str, Any]:
    """The body of a SELECT; nothing where it is none, or no SQL."""
    body: dict[str, Any] = statement(sql).get("SelectStmt", {})
    return body


def output_name(target: dict[str, Any]) -> str:
    """The name that a column of the result gets (PostgreSQL manual, "Column Labels")."""
    value = target["val"]
    return str(target.get("name") or _column(value) or _function(value))


def _column(node: dict[str, Any]) -> str:
    """The name of a column, casts around it left away; empty for anything else."""
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
        one, other = pending.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            keys = one.keys() - {"location"}
            if keys != other.keys() - {"location"}:
                return False
            pending.extend((one[key], other[key]) for key in keys)
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pending.extend(zip(one, other, strict=True))
        elif type(one) is not type(other) or one != other:
            return False
    return True


def nodes(tree: Any, name: str) -> Iterator[Any]:
    """Every node called `name` in a parse tree, at any depth."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if name in node:
                yield node[name]
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)

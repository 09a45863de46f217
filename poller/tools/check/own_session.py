"""Check for values that the poller's own session distorts: its settings and its own backend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from poller.config.queries.sql_ast import nodes, statement
from poller.config.queries.sql_functions import calls

_RESET = "read reset_val of pg_settings instead"
_NO_OTHER = "omit it, because pg_settings has no value of another session"
OWN_SETTINGS: dict[str, str] = {
    **dict.fromkeys(
        (
            "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout",
            "client_connection_check_interval", "extra_float_digits", "datestyle", "intervalstyle",
            "timezone", "bytea_output", "xmloption", "lc_monetary", "standard_conforming_strings",
            "gin_fuzzy_search_limit", "xmlbinary", "quote_all_identifiers", "transform_null_equals",
            "array_nulls",
        ),
        _RESET,
    ),
    # The poller sets these at the start of the session, which changes reset_val as well.
    **dict.fromkeys(("default_transaction_read_only", "client_encoding", "application_name"), _NO_OTHER),
    "transaction_read_only": "read pg_is_in_recovery() instead",
    "transaction_isolation": "read default_transaction_isolation instead",
    "transaction_deferrable": "read default_transaction_deferrable instead",
}  # fmt: skip
"""Settings that the poller sets for its own session, and what to read instead."""

_BACKENDS = {"pg_stat_activity", "pg_locks", "pg_stat_ssl", "pg_stat_gssapi"}
_BACKEND_FUNCTIONS = {
    "pg_stat_get_activity": "pg_stat_activity",
    "pg_lock_status": "pg_locks",
    "pg_stat_get_backend_idset": "pg_stat_get_backend_idset()",
}
_DATABASE_COLUMNS = {
    "numbackends": (
        "reads numbackends, which includes the poller's own backend; count the rows of pg_stat_activity with "
        "pid <> pg_backend_pid() instead"
    ),
    "xact_rollback": (
        "reads xact_rollback, which the poller's own transactions increase; add datname <> current_database()"
    ),
}
"""Columns of pg_stat_database that the poller's session changes in its own database."""
_OWN = {"state": "active", "backend_type": "client backend"}
"""Values of these columns for the poller's backend while it runs a query."""
_NULL_FOR_OWN = {"wait_event", "wait_event_type", "leader_pid"}
_RECENT_FOR_OWN = {"xact_start", "query_start", "state_change"}
_AGGREGATES = {"count", "sum", "min", "max", "avg"}
_CHOOSES = {"=", "~", "~*", "~~", "~~*"}


def distortions(sql: str, settings: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Each rule that `sql` violates, with the problem and what to write instead.

    `settings` are those that the query sets for itself, so that it knows their values.
    """
    tree = statement(sql)
    read = _settings(tree)
    names = sorted(read.difference(map(str.lower, settings)))
    if len(read) == len(OWN_SETTINGS):
        yield (
            "own-setting",
            f"reads all settings, some of which the poller sets for its own session; {_RESET}",
        )
    elif names:
        advice = dict.fromkeys(OWN_SETTINGS[name] for name in names)
        problem = f"reads {', '.join(names)}, which the poller sets for its own session"
        yield "own-setting", f"{problem}; {', or '.join(advice)}"
    yield from (("own-backend", _DATABASE_COLUMNS[column]) for column in sorted(_of_database(tree)))
    for relation in dict.fromkeys(_unguarded(tree, False)):
        yield (
            "own-backend",
            f"reads {relation} including the poller's own backend; add pid <> pg_backend_pid()",
        )


def _settings(tree: Any) -> set[str]:
    names = {str(show.get("name", "")).lower() for show in nodes(tree, "VariableShowStmt")}
    for call in nodes(tree, "FuncCall"):
        if _last(call.get("funcname", [])) == "current_setting":
            names.update(text.lower() for text in _texts(call.get("args", [])[:1]))
    reads_all = any(relation.get("relname") == "pg_settings" for relation in nodes(tree, "RangeVar")) or any(
        call.name == "pg_show_all_settings" for call in calls(tree)
    )
    if reads_all and ("setting" in set(_columns(tree)) or any(True for _ in nodes(tree, "A_Star"))):
        chosen = [expression for expression in nodes(tree, "A_Expr") if _chooses_by(expression, "name")]
        if not chosen:
            return set(OWN_SETTINGS)
        for expression in chosen:
            like, texts = _last(expression.get("name", [])), list(_texts(expression))
            names.update(name for name in OWN_SETTINGS for text in texts if _matches(name, like, text))
    return names & OWN_SETTINGS.keys()


def _chooses_by(expression: dict[str, Any], column: str) -> bool:
    sides = (expression.get("lexpr"), expression.get("rexpr"))
    return _last(expression.get("name", [])) in _CHOOSES and column in {
        name for side in sides for name in _columns(side)
    }


def _matches(name: str, operator: str, text: str) -> bool:
    if operator.startswith("~~"):
        text = re.escape(text.lower()).replace("%", ".*").replace("_", ".")
        return re.fullmatch(text, name) is not None
    if operator.startswith("~"):
        try:
            return re.search(text.lower(), name) is not None
        except re.error:
            return False
    return text.lower() == name


def _of_database(tree: Any) -> set[str]:
    """The columns of pg_stat_database that a statement reads for the poller's own database."""
    columns = {
        column
        for call in calls(tree)
        for column in _DATABASE_COLUMNS
        if call.name == f"pg_stat_get_db_{column}" and not call.of_row
    }
    for body in _bodies(tree):
        relations, conditions = _sources(body)
        other = any(
            _operator(part.get("A_Expr", {})) == "<>" and _calls(part, "current_database")
            for condition in conditions
            for part in _all_of(condition)
        )
        if "pg_stat_database" in relations and not other:
            all_columns = any(True for _ in nodes(body, "A_Star"))
            columns |= (
                _DATABASE_COLUMNS.keys() if all_columns else _DATABASE_COLUMNS.keys() & set(_columns(body))
            )
    return columns


def _unguarded(tree: Any, guarded: bool) -> Iterator[str]:
    """The relations of backends that a SELECT reads without a condition that excludes its own backend.

    A condition on the pid (`guarded`) holds for the queries in FROM, WITH and WHERE of its SELECT as well.
    """
    for body in _bodies(tree, nested=False):
        relations, conditions = _sources(body)
        targets = body.get("targetList", [])
        holds = guarded or any(map(_excludes_own, conditions)) or _filtered(targets)
        if not holds:
            yield from (name for name in relations if name in _BACKENDS or name.endswith(")"))
        by_pid = guarded or any(
            _calls(part, "pg_backend_pid") and _excludes_own(part)
            for condition in conditions
            for part in _all_of(condition)
        )
        for key, clause in body.items():
            yield from _unguarded(clause, by_pid and key in ("fromClause", "withClause", "whereClause"))


def _bodies(tree: Any, *, nested: bool = True) -> Iterator[dict[str, Any]]:
    """The body of each SELECT, including both sides of a UNION; with `nested` also of subqueries."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            if "limitOption" in node:
                yield node
                if not nested:
                    continue
            pending.extend(node.values())


def _sources(body: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The relations that a SELECT reads directly, and the conditions on its rows."""
    relations: list[str] = []
    conditions = [body.get("whereClause")]
    pending = list(body.get("fromClause", []))
    while pending:
        item = pending.pop(0)
        if join := item.get("JoinExpr"):
            pending += [join["larg"], join["rarg"]]
            conditions.append(join.get("quals"))
        elif "RangeVar" in item:
            relations.append(str(item["RangeVar"].get("relname")))
        elif "RangeFunction" in item:
            relations += _backend_functions(item)
    relations += [name for target in body.get("targetList", []) for name in _backend_functions(target)]
    return relations, [condition for condition in conditions if condition]


def _backend_functions(tree: Any) -> Iterator[str]:
    if not any(_bodies(tree)):
        yield from (_BACKEND_FUNCTIONS[call.name] for call in calls(tree) if call.name in _BACKEND_FUNCTIONS)


def _filtered(targets: list[Any]) -> bool:
    """Whether each aggregate of a SELECT has a FILTER that excludes the poller's own backend."""
    aggregates = [
        call
        for call in nodes([target for target in targets if not any(_bodies(target))], "FuncCall")
        if "agg_filter" in call or _last(call.get("funcname", [])) in _AGGREGATES
    ]
    return bool(aggregates) and all(
        "agg_filter" in call and _excludes_own(call["agg_filter"]) for call in aggregates
    )


def _all_of(condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The conditions that AND joins."""
    if condition.get("BoolExpr", {}).get("boolop") == "AND_EXPR":
        for part in condition["BoolExpr"]["args"]:
            yield from _all_of(part)
    else:
        yield condition


def _excludes_own(condition: dict[str, Any]) -> bool:
    """Whether `condition` excludes the backend that runs the query."""
    if joined := condition.get("BoolExpr"):
        if joined["boolop"] == "NOT_EXPR":
            inner = joined["args"][0]
            return _fields(inner) == {"granted"} or _differs(inner.get("A_Expr", {}), "=")
        return {"AND_EXPR": any, "OR_EXPR": all}[joined["boolop"]](map(_excludes_own, joined["args"]))
    columns = set(_columns(condition))
    nulls = bool(columns & _NULL_FOR_OWN) and not any(True for _ in nodes(condition, "CoalesceExpr"))
    if test := condition.get("NullTest"):
        return test.get("nulltesttype") == "IS_NOT_NULL" and nulls and columns <= _NULL_FOR_OWN
    expression = condition.get("A_Expr", {})
    operator = _operator(expression)
    if _calls(condition, "pg_blocking_pids"):
        return operator in (">", "<>") or expression.get("kind") == "AEXPR_OP_ANY"
    left, right = _recent(expression.get("lexpr")), _recent(expression.get("rexpr"))
    if operator in ("<", "<="):
        return (left, right) in ((1, 0), (0, -1))
    if operator in (">", ">="):
        return (left, right) in ((0, 1), (-1, 0))
    if operator == "<>":
        return _differs(expression, "<>")
    texts = list(_texts(expression))
    if operator not in ("=", "~~"):
        return False
    if own := next((_OWN[column] for column in columns if column in _OWN), None):
        return bool(texts) and not any(_matches(own, operator, text) for text in texts)
    return nulls


def _differs(expression: dict[str, Any], operator: str) -> bool:
    """Whether `expression` compares by `operator` to the poller's own pid, state or type of backend."""
    own = [_OWN[column] for column in _columns(expression) if column in _OWN]
    same = _calls(expression, "pg_backend_pid") or any(text in own for text in _texts(expression))
    return _operator(expression) == operator and same


def _operator(expression: dict[str, Any]) -> str:
    name = _last(expression.get("name", []))
    return "<>" if expression.get("kind") == "AEXPR_DISTINCT" else name


def _recent(node: Any) -> int:
    """1 for a time that is latest for the poller's backend, -1 for an age that is lowest, otherwise 0."""
    if isinstance(node, list):
        return next(filter(None, map(_recent, node)), 0)
    node = node or {}
    if cast := node.get("TypeCast"):
        return _recent(cast["arg"])
    if call := node.get("FuncCall"):
        args = call.get("args", [])
        if _last(call.get("funcname", [])) != "age":
            return _recent(args)
        return -_recent(args[0]) if len(args) == 1 else _recent(args[:1]) or -_recent(args[1:])
    if expression := node.get("A_Expr"):
        left, right = _recent(expression.get("lexpr")), _recent(expression.get("rexpr"))
        return left or (-right if _operator(expression) == "-" else right)
    if coalesced := node.get("CoalesceExpr"):
        return _recent(coalesced["args"])
    return int(not _fields(node).isdisjoint(_RECENT_FOR_OWN))


def _fields(node: dict[str, Any]) -> set[str]:
    """The name of a column; empty for anything else."""
    return {_last(node["ColumnRef"].get("fields", []))} if "ColumnRef" in node else set()


def _calls(tree: Any, name: str) -> bool:
    return any(call.name == name for call in calls(tree))


def _columns(tree: Any) -> Iterator[str]:
    for column in nodes(tree, "ColumnRef"):
        yield _last(column.get("fields", []))


def _texts(tree: Any) -> Iterator[str]:
    for constant in nodes(tree, "A_Const"):
        if "sval" in constant:
            yield str(constant["sval"].get("sval", ""))


def _last(names: list[Any]) -> str:
    return str(names[-1]["String"].get("sval", "")) if names and "String" in names[-1] else ""

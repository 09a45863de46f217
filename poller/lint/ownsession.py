"""Find in a statement what the poller's own session distorts: settings that it sets, and its own backend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from poller.functions import calls
from poller.parsed import nodes, statement

_RESET = "read reset_val of pg_settings instead"
_NO_OTHER = "omit it, because pg_settings has no value of another session"
OWN_SETTINGS: dict[str, str] = {
    **dict.fromkeys(
        (
            "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout",
            "client_connection_check_interval", "extra_float_digits", "datestyle", "intervalstyle",
            "timezone", "bytea_output", "xmloption", "lc_monetary", "standard_conforming_strings",
            "gin_fuzzy_search_limit", "xmlbinary", "quote_all_identifiers",
        ),
        _RESET,
    ),
    # These are set when the session begins, which changes reset_val as well.
    **dict.fromkeys(("default_transaction_read_only", "client_encoding", "application_name"), _NO_OTHER),
    "transaction_read_only": "read pg_is_in_recovery() instead",
    "transaction_isolation": "read default_transaction_isolation instead",
    "transaction_deferrable": "read default_transaction_deferrable instead",
}  # fmt: skip
"""Settings that the poller sets for its own session, and what to read instead."""

_BACKENDS = {"pg_stat_activity", "pg_locks"}
_BACKEND_FUNCTIONS = {"pg_stat_get_activity": "pg_stat_activity", "pg_lock_status": "pg_locks"}
_OWN = {"state": "active", "backend_type": "client backend"}
"""What the poller's backend has in these columns while it runs a query."""
_NULL_FOR_OWN = {"wait_event", "wait_event_type", "leader_pid"}
_RECENT_FOR_OWN = {"xact_start", "query_start"}
_CHOOSES = {"=", "~", "~*", "~~", "~~*"}


def distortions(sql: str) -> Iterator[tuple[str, str]]:
    """Each rule that `sql` is against, with what is wrong and what to write instead."""
    tree = statement(sql)
    names = sorted(_settings(tree))
    if len(names) == len(OWN_SETTINGS):
        yield (
            "own-setting",
            f"reads every setting, some of which the poller sets for its own session; {_RESET}",
        )
    elif names:
        advice = dict.fromkeys(OWN_SETTINGS[name] for name in names)
        what = f"reads {', '.join(names)}, which the poller sets for its own session"
        yield "own-setting", f"{what}; {', or '.join(advice)}"
    if any(call.name == "pg_backend_pid" for call in calls(tree)):
        return
    for relation in dict.fromkeys(_unguarded(tree)):
        yield "own-backend", f"reads {relation} with the poller's own backend; add pid <> pg_backend_pid()"


def _settings(tree: Any) -> set[str]:
    found = {str(show.get("name", "")).lower() for show in nodes(tree, "VariableShowStmt")}
    for call in nodes(tree, "FuncCall"):
        if _last(call.get("funcname", [])) == "current_setting":
            found.update(text.lower() for text in _texts(call.get("args", [])[:1]))
    reads_all = any(one.get("relname") == "pg_settings" for one in nodes(tree, "RangeVar")) or any(
        call.name == "pg_show_all_settings" for call in calls(tree)
    )
    if reads_all and ("setting" in set(_columns(tree)) or any(True for _ in nodes(tree, "A_Star"))):
        chosen = [expression for expression in nodes(tree, "A_Expr") if _chooses_by(expression, "name")]
        if not chosen:
            return set(OWN_SETTINGS)
        for expression in chosen:
            like, texts = _last(expression.get("name", [])), list(_texts(expression))
            found.update(name for name in OWN_SETTINGS for text in texts if _matches(name, like, text))
    return found & OWN_SETTINGS.keys()


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


def _unguarded(tree: Any) -> Iterator[str]:
    """The relations of backends that a SELECT reads without a condition that excludes its own backend."""
    for select in nodes(tree, "SelectStmt"):
        relations: list[str] = []
        conditions = [select.get("whereClause")]
        pending = list(select.get("fromClause", []))
        while pending:
            item = pending.pop(0)
            if join := item.get("JoinExpr"):
                pending += [join["larg"], join["rarg"]]
                conditions.append(join.get("quals"))
            elif "RangeVar" in item and (name := str(item["RangeVar"].get("relname"))) in _BACKENDS:
                relations.append(name)
            elif "RangeFunction" in item:
                relations += [
                    _BACKEND_FUNCTIONS[call.name] for call in calls(item) if call.name in _BACKEND_FUNCTIONS
                ]
        if relations and not any(map(_excludes_own, _conjuncts(conditions))):
            yield from relations


def _conjuncts(conditions: list[Any]) -> Iterator[dict[str, Any]]:
    pending = [condition for condition in conditions if condition]
    while pending:
        condition = pending.pop()
        if condition.get("BoolExpr", {}).get("boolop") == "AND_EXPR":
            pending.extend(condition["BoolExpr"]["args"])
        else:
            yield condition


def _excludes_own(condition: dict[str, Any]) -> bool:
    """Whether the backend that runs the query does not meet `condition`."""
    columns = set(_columns(condition))
    if any(call.name == "pg_blocking_pids" for call in calls(condition)):
        return True
    if negated := condition.get("BoolExpr"):
        return bool(negated.get("boolop") == "NOT_EXPR" and columns == {"granted"})
    if test := condition.get("NullTest"):
        return test.get("nulltesttype") == "IS_NOT_NULL" and columns <= _NULL_FOR_OWN
    expression = condition.get("A_Expr", {})
    operator, texts = _last(expression.get("name", [])), list(_texts(expression))
    if operator in ("<", ">", "<=", ">="):
        return bool(columns & _RECENT_FOR_OWN)
    own = next((_OWN[column] for column in columns if column in _OWN), None)
    if operator == "<>":
        return own in texts
    if operator not in ("=", "~~"):
        return False
    if own is not None:
        return bool(texts) and not any(_matches(own, operator, text) for text in texts)
    return bool(columns & _NULL_FOR_OWN)


def _columns(tree: Any) -> Iterator[str]:
    for column in nodes(tree, "ColumnRef"):
        yield _last(column.get("fields", []))


def _texts(tree: Any) -> Iterator[str]:
    for constant in nodes(tree, "A_Const"):
        if "sval" in constant:
            yield str(constant["sval"].get("sval", ""))


def _last(names: list[Any]) -> str:
    return str(names[-1]["String"].get("sval", "")) if names and "String" in names[-1] else ""

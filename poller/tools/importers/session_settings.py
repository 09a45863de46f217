"""PostgreSQL settings in the statements with which another tool sets up its sessions."""

from __future__ import annotations

from typing import Any

from poller.config.queries.schema.server_settings import ALLOWED, setting_value
from poller.config.queries.sql_ast import identifier, statements
from poller.tools.importers.node import SourceNode

Value = str | int | float
_NAMES = {name.lower(): name for name in ALLOWED}
_SWITCHES = {"true": "on", "yes": "on", "false": "off", "no": "off"}


def read_settings(node: SourceNode, key: str) -> dict[str, Value]:
    """Return the settings of a query that the statements at `key` set; report the rest as lost."""
    settings: dict[str, Value] = {}
    for text in node.texts(key) if key in node else ():
        for tree in statements(text) or [{}]:
            name, value = _setting(tree.get("VariableSetStmt", {}))
            if value is None:
                message = "the poller runs no statements before a query, except settings"
                node.report_loss(key, message, "run it once by hand, or use ALTER ROLE ... SET")
                continue
            try:
                setting_value(name, value)
            except ValueError as problem:
                message, _, advice = str(problem).partition("; ")
                node.report_loss(key, f"{name} {message}", advice)
            else:
                settings[name] = value
    return settings


def _setting(tree: dict[str, Any]) -> tuple[str, Value | None]:
    """Return the name and value that a SET statement sets; the value is None for any other statement."""
    name = str(tree.get("name", "")).lower()
    values = [_constant(argument) for argument in tree.get("args", [])]
    if tree.get("kind") != "VAR_SET_VALUE" or None in values:
        return name, None
    if name == "search_path":
        return name, ", ".join(identifier(str(value)) for value in values)
    value = values[0] if len(values) == 1 else None
    return _NAMES.get(name, name), _SWITCHES.get(str(value).lower(), value)


def _constant(argument: dict[str, Any]) -> Value | None:
    match argument.get("A_Const"):
        case {"sval": text}:
            return str(text.get("sval", ""))
        case {"ival": number}:
            return int(number.get("ival", 0))
        case {"fval": number}:
            return float(number.get("fval", 0))
    return None

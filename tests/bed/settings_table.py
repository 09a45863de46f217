"""Table of the settings for the documentation."""

from __future__ import annotations

from poller.config.environment import is_secret, variables
from poller.config.settings import format_value
from poller.config.settings_schema import Variables


def table() -> str:
    """One row per setting: its variables, its default, its meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Variables.model_fields.items():
        default = "host name" if name == "instance" else field.get_default(call_default_factory=True)
        told = format_value(name, default) or "-"
        names = [f"`{variable}`" for variable in variables(field)]
        if is_secret(field):
            names.insert(1, f"`{variables(field)[0]}_FILE`")
        rows.append(f"| {', '.join(names)} | {told} | {field.description} |")
    return "\n".join(rows)

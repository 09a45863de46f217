"""Table of the settings for the documentation."""

from __future__ import annotations

from poller.config.settings import SETTINGS


def table() -> str:
    """Return one row per setting: its variables, its default, its meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, setting in SETTINGS.items():
        default = "host name" if name == "instance" else setting.format(setting.default) or "-"
        names = [f"`{variable}`" for variable in setting.variables]
        if setting.secret:
            names.insert(1, f"`{setting.variables[0]}_FILE`")
        rows.append(f"| {', '.join(names)} | {default} | {setting.meaning} |")
    return "\n".join(rows)

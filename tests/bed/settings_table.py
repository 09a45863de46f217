"""Write the README's table of settings from the settings themselves: python -m tests.bed.settings_table."""

from __future__ import annotations

from pathlib import Path

from poller.config.environment import is_secret, variables
from poller.config.settings import format_value
from poller.config.settings_schema import Variables

README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- generated: settings -->", "<!-- end -->"


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


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
    README.write_text(f"{before}\n{table()}\n\n{after}", encoding="utf-8")

"""Write the README's table of settings from the settings themselves: python -m tests.bed.settings_table."""

from __future__ import annotations

from pathlib import Path

from poller.config.settings import SETTINGS

README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- generated: settings -->", "<!-- end -->"


def table() -> str:
    """One row per setting: its variables, its default, its meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, setting in SETTINGS.items():
        default = "host name" if name == "instance" else setting.format(setting.default) or "-"
        names = [f"`{variable}`" for variable in setting.variables]
        if setting.secret:
            names.insert(1, f"`{setting.variables[0]}_FILE`")
        rows.append(f"| {', '.join(names)} | {default} | {setting.meaning} |")
    return "\n".join(rows)


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
    README.write_text(f"{before}\n{table()}\n\n{after}", encoding="utf-8")

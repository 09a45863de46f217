"""Pages of the documentation, their marked blocks and their generated parts.

`python -m tests.bed.documentation` writes the generated parts again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from poller.cli.app import COMMANDS, app
from tests.bed import metrics_table, settings_table
from tests.bed.process import ROOT
from tests.ecosystem import builds

_BLOCK = re.compile(r"^ *<!-- (\w+): ?([^\n]*?) -->\n *```\w+\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(\n\n<!-- end -->)", re.DOTALL)


class Block(NamedTuple):
    """A block of code with a comment `<!-- kind: argument -->` on the line before it."""

    kind: str
    argument: str
    text: str


def pages() -> list[Path]:
    """Return the README and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """Return the marked blocks of a page in order."""
    return [Block(*groups) for groups in _BLOCK.findall(read(page))]


def all_blocks(kind: str) -> list[Block]:
    """Return the blocks of one kind of all pages."""
    return [block for page in pages() for block in blocks(page) if block.kind == kind]


def only(kind: str) -> tuple[str, str]:
    """Return the argument and the text of the only block of a kind."""
    (block,) = all_blocks(kind)
    return block.argument, block.text


def table_below(line: str, page: Path) -> list[list[str]]:
    """Return the cells of the rows of the first table below a line of a page."""
    _, _, section = read(page).partition(f"\n{line}\n")
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    if table is None:
        raise LookupError(f"no table below {line!r} in {page}")
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table[0].splitlines()[2:]]


def script(commands: str) -> str:
    """Return shell commands in which `poller` is the package under test, whatever is installed."""
    return f'poller() {{ {sys.executable} -m poller "$@"; }}\n{commands}'.replace(
        "exec poller", f"exec {sys.executable} -m poller"
    )


def generated() -> dict[str, Callable[[], str]]:
    """Return the functions that write the generated parts, by name."""
    return {
        "settings": settings_table.table,
        "events": metrics_table.table,
        "commands": command_help,
        "ecosystem": builds.table,
        "releases": builds.summary,
    }


def with_generated_parts(text: str) -> str:
    """Return the text of a page with its generated parts as they are now."""
    return _GENERATED.sub(lambda part: f"{part[1]}{generated()[part[2]]()}{part[3]}", text)


def command_help() -> str:
    """Return the help of every command as Markdown."""
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    helps = {name: runner.invoke(app, [name, "--help"]).output for name in COMMANDS}
    return "\n\n".join(f"## poller {name}\n\n```text\n{text.strip()}\n```" for name, text in helps.items())


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_generated_parts(read(page)), encoding="utf-8")

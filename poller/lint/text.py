"""Print complaints for people: a line each, and what is in order as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poller.lint.complaint import Complaint, failed, summary
from poller.lint.judged import Judged
from poller.printable import one_line
from poller.words import counted

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


def print_judged(console: Console, judged: Sequence[Judged], others: Sequence[Complaint]) -> None:
    """Print a line for each query that the server accepts, one for each complaint, and a summary."""
    print_complaints(console, others)
    for one in judged:
        if one.state == "ok" and not failed(one.complaints):
            _print(console, "ok", f"{one.place.file}:{one.place.line}: {one.query}: {one.told}")
        print_complaints(console, one.complaints)
    complaints = [*others, *(complaint for one in judged for complaint in one.complaints)]
    console.print(f"{counted(len(judged), 'query')}: {summary(complaints)}", markup=False, highlight=False)


def print_complaints(console: Console, complaints: Sequence[Complaint]) -> None:
    """Print a line for each complaint."""
    for complaint in complaints:
        _print(console, complaint.level, str(complaint))


def _print(console: Console, word: str, line: str) -> None:
    from rich.text import Text

    text = Text.assemble((f"{word:8}", _STYLES[word]), " ", one_line(line))
    # Piped to a program a complaint is a line: grep must find it whole.
    console.print(text, soft_wrap=not console.is_terminal, highlight=False)

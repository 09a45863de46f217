"""Finding of one diagnostic check with its advice, and the output of findings as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from poller.model.printable import one_line
from poller.model.redaction import redact, redact_all

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

State = Literal["ok", "skip", "warn", "fail"]
"""`skip`: the check does not apply or could not run, which is not a failure."""

_STYLES: dict[State, str] = {"ok": "green", "skip": "dim", "warn": "yellow", "fail": "red"}
_NAME_WIDTH = 28
"""Width of the name column on a terminal; the name of a query may have 63 characters."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    check: str
    """Name of the check, one word."""
    state: State
    detail: str
    """Result as text."""
    advice: str | None = None
    """Fix."""
    subject: str | None = None
    """Item that the check examined, such as the name of a query."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Result for programs: seconds, counts and names."""

    @property
    def name(self) -> str:
        return f"{self.check} {self.subject}" if self.subject else self.check


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether no check failed; a warning is not a failure."""
    return all(finding.state != "fail" for finding in findings)


def summary(findings: Iterable[Finding]) -> str:
    """Numbers of findings in one line: `1 failed, 2 warnings, 9 ok, 1 skipped`."""
    count = Counter(finding.state for finding in findings)
    warnings = f"{count['warn']} warning{'' if count['warn'] == 1 else 's'}"
    return f"{count['fail']} failed, {warnings}, {count['ok']} ok, {count['skip']} skipped"


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print a row for each finding, and a summary.

    On a terminal the advice is below the detail, and long cells fold. Otherwise it follows on the same line.
    """
    if console.is_terminal:
        console.print(_table(findings))
        console.print(summary(findings))
        return
    # In a pipe each finding is one line, so that grep prints the whole finding.
    names = [_plain(finding.name) for finding in findings]
    width = max(map(len, names), default=0)
    for finding, name in zip(findings, names, strict=True):
        advice = f" -> {_plain(finding.advice)}" if finding.advice else ""
        line = f"{finding.state:4}  {name:{width}}  {_plain(finding.detail)}{advice}"
        console.print(line, markup=False, emoji=False, soft_wrap=True)
    console.print(summary(findings))


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, show_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    before: Finding | None = None
    for finding in findings:
        if before is not None and bool(before.subject) != bool(finding.subject):
            table.add_row()  # a blank line separates queries from the other checks
        before = finding
        cell = Text(_plain(finding.detail))
        if finding.advice:
            cell.append(f"\n-> {_plain(finding.advice)}", "bold")
        table.add_row(
            Text(finding.state, _STYLES[finding.state]), Text(_plain(finding.subject or finding.check)), cell
        )
    return table


def to_json(findings: Sequence[Finding]) -> str:
    """JSON object with `ok`, which matches the exit code, and the list `checks`."""
    checks = [
        {
            "check": finding.check,
            **({"subject": finding.subject} if finding.subject else {}),
            "state": finding.state,
            "detail": redact(finding.detail),
            "advice": finding.advice and redact(finding.advice),
            "facts": redact_all(finding.facts),
        }
        for finding in findings
    ]
    return json.dumps({"ok": healthy(findings), "checks": checks}, indent=2, ensure_ascii=False)


def _plain(text: str) -> str:
    """One line without secrets and without terminal control characters."""
    return one_line(redact(text))

"""Diagnostics as text, JSON, SARIF, or workflow commands of GitHub.

Source: GitHub Docs, "Workflow commands for GitHub Actions"; the escaping rules are those of actions/toolkit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from poller.model.diagnostics import RULES, Diagnostic, Level, failed, summary
from poller.model.printable import lines, one_line
from poller.model.text import counted
from poller.tools.check.result import CheckedQuery

if TYPE_CHECKING:
    from rich.console import Console


def to_json(complaints: Sequence[Diagnostic], judged: Sequence[CheckedQuery] = ()) -> str:
    """One object: `ok` as the exit code says it, a list `problems`, and one `queries` of those looked at."""
    told = {
        "ok": not failed(complaints),
        "problems": [_problem(complaint) for complaint in complaints],
        "queries": [
            {
                "query": one.query,
                "file": one.place.file,
                "line": one.place.line,
                "state": one.state,
                "cost": one.cost,
                "estimate_answers": one.estimate_answers,
                "columns": dict(one.columns),
            }
            for one in judged
        ],
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


def _problem(complaint: Diagnostic) -> dict[str, Any]:
    place = complaint.place
    return {
        "rule": complaint.rule,
        "level": complaint.level,
        "query": complaint.query,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "path": place.path if place else complaint.where,
        "message": complaint.message,
    }


def relative(file: str) -> str:
    """The path from the working directory where the file lies below it, else as it was given."""
    path = Path(file)
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path.as_posix()


def uri(file: str) -> str:
    """The same as a URI reference (RFC 3986)."""
    path = Path(relative(file))
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


_COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}
_IN_TEXT = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES = {**_IN_TEXT, ":": "%3A", ",": "%2C"}


def to_github(complaints: Iterable[Diagnostic]) -> str:
    """One line a complaint."""
    return "".join(f"{_command(complaint)}\n" for complaint in complaints)


def _command(complaint: Diagnostic) -> str:
    place = complaint.place
    properties: dict[str, object] = {}
    if place is not None:
        properties = {"file": relative(place.file), "line": place.line, "col": place.column}
    properties["title"] = f"poller {complaint.rule}"
    told = ",".join(
        f"{name}={_escaped(str(value), _IN_PROPERTIES)}"
        for name, value in properties.items()
        if value is not None
    )
    path = place.path if place else complaint.where
    text = f"{path}: {complaint.message}" if path else complaint.message
    return f"::{_COMMANDS[complaint.level]} {told}::{_escaped(text, _IN_TEXT)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in lines(text))


_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(complaints: Sequence[Diagnostic], version: str) -> str:
    """One log of one run (SARIF 2.1.0, OASIS Standard of 27 March 2020); `version` is the poller's own."""
    rules = list(RULES)
    driver = {
        "name": "obscura-poller",
        "version": version,
        "rules": [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in rules],
    }
    results = [_result(complaint, rules.index(complaint.rule)) for complaint in complaints]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _result(complaint: Diagnostic, rule: int) -> dict[str, Any]:
    place = complaint.place
    path = place.path if place else complaint.where
    result: dict[str, Any] = {
        "ruleId": complaint.rule,
        "ruleIndex": rule,
        "level": complaint.level,
        "message": {"text": f"{path}: {complaint.message}" if path else complaint.message},
    }
    if place is not None:
        physical: dict[str, Any] = {"artifactLocation": {"uri": uri(place.file)}}
        if place.line is not None:
            region = {"startLine": place.line, "startColumn": place.column}
            physical["region"] = {name: value for name, value in region.items() if value is not None}
        result["locations"] = [{"physicalLocation": physical}]
    return result


_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


def print_judged(console: Console, judged: Sequence[CheckedQuery], others: Sequence[Diagnostic]) -> None:
    """Print a line for each query that the server accepts, one for each complaint, and a summary."""
    print_complaints(console, others)
    for one in judged:
        if one.state == "ok" and not failed(one.complaints):
            _print(console, "ok", f"{one.place.file}:{one.place.line}: {one.query}: {one.summary}")
        print_complaints(console, one.complaints)
    complaints = [*others, *(complaint for one in judged for complaint in one.complaints)]
    console.print(f"{counted(len(judged), 'query')}: {summary(complaints)}", markup=False, highlight=False)


def print_complaints(console: Console, complaints: Sequence[Diagnostic]) -> None:
    """Print a line for each complaint."""
    for complaint in complaints:
        _print(console, complaint.level, str(complaint))


def _print(console: Console, word: str, line: str) -> None:
    from rich.text import Text

    text = Text.assemble((f"{word:8}", _STYLES[word]), " ", one_line(line))
    # Piped to a program a complaint is a line: grep must find it whole.
    console.print(text, soft_wrap=not console.is_terminal, highlight=False)

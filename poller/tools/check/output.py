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


def to_json(diagnostics: Sequence[Diagnostic], judged: Sequence[CheckedQuery] = ()) -> str:
    """JSON object: `ok`, which matches the exit code, and the lists `problems` and `queries`."""
    document = {
        "ok": not failed(diagnostics),
        "problems": [_problem(diagnostic) for diagnostic in diagnostics],
        "queries": [
            {
                "query": checked.query,
                "file": checked.place.file,
                "line": checked.place.line,
                "state": checked.state,
                "cost": checked.cost,
                "estimate_answers": checked.estimate_answers,
                "columns": dict(checked.columns),
            }
            for checked in judged
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _problem(diagnostic: Diagnostic) -> dict[str, Any]:
    place = diagnostic.place
    return {
        "rule": diagnostic.rule,
        "level": diagnostic.level,
        "query": diagnostic.query,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "path": place.path if place else diagnostic.where,
        "message": diagnostic.message,
    }


def relative(file: str) -> str:
    """The path relative to the working directory if the file is below it, otherwise the original path."""
    path = Path(file)
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path.as_posix()


def uri(file: str) -> str:
    """The relative path as a URI reference (RFC 3986)."""
    path = Path(relative(file))
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


_COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}
_IN_TEXT = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES = {**_IN_TEXT, ":": "%3A", ",": "%2C"}


def to_github(diagnostics: Iterable[Diagnostic]) -> str:
    """One workflow command of GitHub per diagnostic."""
    return "".join(f"{_command(diagnostic)}\n" for diagnostic in diagnostics)


def _command(diagnostic: Diagnostic) -> str:
    place = diagnostic.place
    properties: dict[str, object] = {}
    if place is not None:
        properties = {"file": relative(place.file), "line": place.line, "col": place.column}
    properties["title"] = f"poller {diagnostic.rule}"
    options = ",".join(
        f"{name}={_escaped(str(value), _IN_PROPERTIES)}"
        for name, value in properties.items()
        if value is not None
    )
    path = place.path if place else diagnostic.where
    text = f"{path}: {diagnostic.message}" if path else diagnostic.message
    return f"::{_COMMANDS[diagnostic.level]} {options}::{_escaped(text, _IN_TEXT)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in lines(text))


_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(diagnostics: Sequence[Diagnostic], version: str) -> str:
    """SARIF log of one run (SARIF 2.1.0, OASIS Standard of 27 March 2020); `version` is the poller's."""
    rules = list(RULES)
    driver = {
        "name": "obscura-poller",
        "version": version,
        "rules": [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in rules],
    }
    results = [_result(diagnostic, rules.index(diagnostic.rule)) for diagnostic in diagnostics]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    place = diagnostic.place
    path = place.path if place else diagnostic.where
    result: dict[str, Any] = {
        "ruleId": diagnostic.rule,
        "ruleIndex": rule,
        "level": diagnostic.level,
        "message": {"text": f"{path}: {diagnostic.message}" if path else diagnostic.message},
    }
    if place is not None:
        physical: dict[str, Any] = {"artifactLocation": {"uri": uri(place.file)}}
        if place.line is not None:
            region = {"startLine": place.line, "startColumn": place.column}
            physical["region"] = {name: value for name, value in region.items() if value is not None}
        result["locations"] = [{"physicalLocation": physical}]
    return result


_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


def print_report(console: Console, judged: Sequence[CheckedQuery], others: Sequence[Diagnostic]) -> None:
    """Print a line for each accepted query, a line for each diagnostic, and a summary."""
    print_diagnostics(console, others)
    for checked in judged:
        if checked.state == "ok" and not failed(checked.diagnostics):
            place = f"{checked.place.file}:{checked.place.line}"
            _print(console, "ok", f"{place}: {checked.query}: {checked.summary}")
        print_diagnostics(console, checked.diagnostics)
    diagnostics = [*others, *(diagnostic for checked in judged for diagnostic in checked.diagnostics)]
    console.print(f"{counted(len(judged), 'query')}: {summary(diagnostics)}", markup=False, highlight=False)


def print_diagnostics(console: Console, diagnostics: Sequence[Diagnostic]) -> None:
    """Print a line for each diagnostic."""
    for diagnostic in diagnostics:
        _print(console, diagnostic.level, str(diagnostic))


def _print(console: Console, level: str, line: str) -> None:
    from rich.text import Text

    text = Text.assemble((f"{level:8}", _STYLES[level]), " ", one_line(line))
    # In a pipe each diagnostic is one line, so that grep prints the whole diagnostic.
    console.print(text, soft_wrap=not console.is_terminal, highlight=False)

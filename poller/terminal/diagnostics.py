"""Output of diagnostics as text, a table, JSON, SARIF, or workflow commands of GitHub.

Source: GitHub Docs, "Workflow commands for GitHub Actions"; the escaping rules are those of actions/toolkit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from poller.model.diagnostics import Diagnostic, Severity, failed
from poller.model.printable import lines, one_line
from poller.model.redaction import redact, redact_all
from poller.model.text import counted, list_names

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLES: dict[Severity, str] = {
    "ok": "green", "skip": "dim", "note": "cyan", "warning": "yellow", "error": "red"
}  # fmt: skip
_STATES: dict[Severity, str] = {
    "ok": "ok", "skip": "skip", "note": "note", "warning": "warn", "error": "fail"
}  # fmt: skip
"""Severities of checks, which also pass."""
_NAME_WIDTH = 28
"""Width of the name column on a terminal; the name of a query may have 63 characters."""
_MOST_RESULTS = 20
"""Maximum number of different results of the databases of a server."""


def print_lines(console: Console, diagnostics: Iterable[Diagnostic]) -> None:
    """Print a line `severity place: message` for each diagnostic."""
    from rich.text import Text

    for diagnostic in diagnostics:
        style = _STYLES[diagnostic.severity]
        text = Text.assemble((f"{diagnostic.severity:8}", style), " ", one_line(str(diagnostic)))
        # In a pipe each diagnostic is one line, so that grep prints the whole diagnostic.
        console.print(text, soft_wrap=not console.is_terminal, highlight=False)


def print_problems(console: Console, problems: Iterable[Diagnostic]) -> None:
    """Print a line `place: message` for each problem, in the colour of its severity."""
    from poller.terminal.console import say

    for problem in problems:
        say(console, str(problem), _STYLES[problem.severity])


def print_checks(console: Console, checks: Sequence[Diagnostic]) -> None:
    """Print a row `state name message` for each check, passed or not, and a summary.

    On a terminal the advice is below the message, and long cells fold. Otherwise it follows on the same line.
    """
    if console.is_terminal:
        console.print(_table(checks))
        console.print(count_checks(checks))
        return
    names = [_name_of(check) for check in checks]
    width = max(map(len, names), default=0)
    for check, name in zip(checks, names, strict=True):
        line = f"{_STATES[check.severity]:4}  {name:{width}}  {_with_advice(check)}"
        console.print(line, markup=False, emoji=False, soft_wrap=True)
    console.print(count_checks(checks))


def print_target_checks(
    console: Console, by_target: Sequence[Sequence[Diagnostic]], general: Sequence[Diagnostic]
) -> None:
    """Print a line for each target, the problems of those that have some, the other checks, and a summary.

    Each target has at least one check, and each of its checks has its name. A problem that several targets
    have is printed in full for the first. Databases of a server with equal results are printed once, and at
    most _MOST_RESULTS that differ.
    """
    names: dict[_Result, list[str]] = {}
    for checks in by_target:
        names.setdefault(_result_of(checks), []).append(_plain(checks[0].target))
    width = min(_NAME_WIDTH, max((len(members[0]) for members in names.values()), default=0))
    targets: Counter[Severity] = Counter()
    differing: Counter[str] = Counter()
    omitted: Counter[str] = Counter()
    printed: dict[tuple[str, str], str] = {}
    for result, (name, *others) in names.items():
        targets[result.worst] += 1 + len(others)
        differing[result.owner] += 1
        if differing[result.owner] > _MOST_RESULTS:
            omitted[result.owner] += 1 + len(others)
            continue
        _print_check(console, result.worst, f"{name:{width}}", result.text)
        for severity, rule, text in result.problems:
            before = printed.setdefault((rule, text), name)
            _print_check(console, severity, f"  {rule}:", text if before == name else f"as on {before}")
        if others:
            _print_check(console, result.worst, "  same on:", list_names(others))
    for owner, number in omitted.items():
        _print_check(console, "note", f"{owner}*", f"{number} more with other results; --format json has all")
    if general:
        console.print()
    for check in general:
        _print_check(console, check.severity, f"{_name_of(check)}:", _with_advice(check))
    console.print(
        f"{counted(len(by_target), 'target')}: {targets['error']} failed, "
        f"{targets['warning']} with warnings, {targets['ok']} ok; other checks: {count_checks(general)}",
        soft_wrap=True,
    )


class _Result(NamedTuple):
    """The text of the checks of a target, without its name."""

    owner: str
    """The target, or the beginning of the name of a database of a server: the server's target and a slash."""
    worst: Severity
    text: str
    problems: tuple[tuple[Severity, str, str], ...]


def _result_of(checks: Sequence[Diagnostic]) -> _Result:
    problems = [check for check in checks if check.severity in ("error", "warning", "note")]
    severities = {check.severity for check in problems}
    worst: Severity = "error" if "error" in severities else "warning" if "warning" in severities else "ok"
    first, counts = checks[0], count_checks(checks)
    server, slash, _ = first.target.partition("/")
    return _Result(
        f"{server}{slash}",
        worst,
        f"{_plain(first.message)}; {counts}" if first.severity == "ok" else counts,
        tuple((check.severity, _name_of(check), _with_advice(check)) for check in problems),
    )


def _print_check(console: Console, severity: Severity, name: str, text: str) -> None:
    from rich.text import Text

    line = Text.assemble((f"{_STATES[severity]:4}", _STYLES[severity]), f"  {name}  {text}")
    console.print(line, soft_wrap=not console.is_terminal, highlight=False)


def _name_of(check: Diagnostic) -> str:
    return _plain(f"{check.rule} {check.subject}" if check.subject else check.rule)


def _with_advice(check: Diagnostic) -> str:
    return _plain(check.message) + (f" -> {_plain(check.advice)}" if check.advice else "")


def _table(checks: Sequence[Diagnostic]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, show_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    before: Diagnostic | None = None
    for check in checks:
        if before is not None and bool(before.subject) != bool(check.subject):
            table.add_row()  # a blank line separates queries from the other checks
        before = check
        cell = Text(_plain(check.message))
        if check.advice:
            cell.append(f"\n-> {_plain(check.advice)}", "bold")
        state = Text(_STATES[check.severity], _STYLES[check.severity])
        table.add_row(state, Text(_plain(check.subject or check.rule)), cell)
    return table


def _plain(text: str) -> str:
    """One line without secrets and without terminal control characters."""
    return one_line(redact(text))


def count_problems(diagnostics: Iterable[Diagnostic]) -> str:
    """Numbers of problems in one line: `1 error, 2 warnings, 0 notes`."""
    count = Counter(diagnostic.severity for diagnostic in diagnostics)
    severities: tuple[Severity, ...] = ("error", "warning", "note")
    return ", ".join(counted(count[severity], severity) for severity in severities)


def count_checks(checks: Iterable[Diagnostic]) -> str:
    """Numbers of checks in one line: `1 failed, 2 warnings, 9 ok, 1 skipped`."""
    count = Counter(check.severity for check in checks)
    warnings = counted(count["warning"], "warning")
    return f"{count['error']} failed, {warnings}, {count['ok']} ok, {count['skip']} skipped"


def to_json(diagnostics: Sequence[Diagnostic], queries: Sequence[Mapping[str, object]] = ()) -> str:
    """JSON object: `ok`, which matches the exit code, and the lists `problems` and `queries`."""
    problems = [
        {
            "rule": diagnostic.rule,
            "level": diagnostic.severity,
            "query": diagnostic.subject if diagnostic.place else None,
            "file": str(diagnostic.place.file) if diagnostic.place else None,
            "line": diagnostic.place.line if diagnostic.place else None,
            "column": diagnostic.place.column if diagnostic.place else None,
            "path": _key(diagnostic),
            **({"target": diagnostic.target} if diagnostic.target else {}),
            "message": diagnostic.message,
        }
        for diagnostic in diagnostics
    ]
    return _json({"ok": not failed(diagnostics), "problems": problems, "queries": list(queries)})


def checks_to_json(checks: Sequence[Diagnostic]) -> str:
    """JSON object: `ok`, which matches the exit code, and the list `checks`, without secrets."""
    items = [
        {
            **({"target": check.target} if check.target else {}),
            "check": check.rule,
            **({"subject": check.subject} if check.subject else {}),
            "state": _STATES[check.severity],
            "detail": redact(check.message),
            "advice": check.advice and redact(check.advice),
            "facts": redact_all(check.facts),
        }
        for check in checks
    ]
    return _json({"ok": not failed(checks), "checks": items})


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def _key(diagnostic: Diagnostic) -> str:
    """The key in the file, or the variable or option if no file has the problem."""
    return diagnostic.place.key if diagnostic.place else diagnostic.subject or ""


def _with_key(diagnostic: Diagnostic) -> str:
    key = _key(diagnostic)
    return f"{key}: {diagnostic.sentence}" if key else diagnostic.sentence


_COMMANDS: Mapping[str, str] = {"error": "error", "warning": "warning", "note": "notice"}
_IN_TEXT = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES = {**_IN_TEXT, ":": "%3A", ",": "%2C"}


def to_github(diagnostics: Iterable[Diagnostic]) -> str:
    """One workflow command of GitHub per diagnostic."""
    return "".join(f"{_command(diagnostic)}\n" for diagnostic in diagnostics)


def _command(diagnostic: Diagnostic) -> str:
    place = diagnostic.place
    properties: dict[str, object] = {}
    if place is not None:
        properties = {"file": _relative(place.file), "line": place.line, "col": place.column}
    properties["title"] = f"poller {diagnostic.rule}"
    options = ",".join(
        f"{name}={_escaped(str(value), _IN_PROPERTIES)}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::{_COMMANDS[diagnostic.severity]} {options}::{_escaped(_with_key(diagnostic), _IN_TEXT)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in lines(text))


_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(diagnostics: Sequence[Diagnostic], rules: Mapping[str, str], version: str) -> str:
    """SARIF log of one run (SARIF 2.1.0, OASIS Standard of 27 March 2020).

    `rules` has the requirement of each rule; `version` is the poller's.
    """
    driver = {
        "name": "obscura-poller",
        "version": version,
        "rules": [{"id": rule, "shortDescription": {"text": text}} for rule, text in rules.items()],
    }
    numbers = {rule: number for number, rule in enumerate(rules)}
    results = [_result(diagnostic, numbers[diagnostic.rule]) for diagnostic in diagnostics]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return _json({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    place = diagnostic.place
    result: dict[str, Any] = {
        "ruleId": diagnostic.rule,
        "ruleIndex": rule,
        "level": diagnostic.severity,
        "message": {"text": _with_key(diagnostic)},
    }
    if place is not None:
        physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(place.file)}}
        if place.line is not None:
            region = {"startLine": place.line, "startColumn": place.column}
            physical["region"] = {name: value for name, value in region.items() if value is not None}
        result["locations"] = [{"physicalLocation": physical}]
    return result


def _relative(path: Path) -> str:
    """The path relative to the working directory if the file is below it, otherwise the original path."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path.as_posix()


def _uri(file: Path) -> str:
    """The relative path as a URI reference (RFC 3986)."""
    path = Path(_relative(file))
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())

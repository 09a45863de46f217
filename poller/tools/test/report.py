"""Reports of test results: text with differences, and JUnit XML for CI.

A JUnit report lists every test case, with its duration and difference. A `Diagnostic` has neither, so this
format is not in `terminal.diagnostics`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from poller.model.printable import one_line
from poller.model.redaction import redact
from poller.model.text import counted
from poller.tools.test.comparison import CaseResult

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"ok": "green", "failed": "red", "broken": "red", "-": "red", "+": "green", "#": "dim", " ": ""}
_INDENT = " " * 8
_NOT_IN_XML = re.compile("[^\\t\\n\\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that an XML 1.0 document must not contain (specification, 2.2)."""
_MOST_LINES = 200


def print_case_result(console: Console, case_result: CaseResult) -> None:
    """Print one case, followed by its difference if it is not ok."""
    from rich.text import Text

    loaded_case = case_result.loaded_case
    where = loaded_case.place if case_result.state != "ok" else str(loaded_case.path)
    line = Text.assemble((f"{case_result.state:6}", _STYLES[case_result.state]), f"  {_plain(where)}: ")
    line.append(_plain(loaded_case.case.name))
    if case_result.state != "ok":
        line.append(f" ({loaded_case.query.name})", "dim")
    for text, style in _details(case_result):
        line.append(f"\n{_INDENT}{text}", style)
    # Never fold a line of the difference.
    console.print(line, soft_wrap=True)


def _details(case_result: CaseResult) -> Iterator[tuple[str, str]]:
    if case_result.broken:
        yield _plain(case_result.broken), "red"
    for line in case_result.lines[:_MOST_LINES]:
        yield _plain(str(line)), _STYLES[line.mark]
    if (more := len(case_result.lines) - _MOST_LINES) > 0:
        yield f"# {more} more lines", "dim"


def summary(case_results: Sequence[CaseResult], untested: Sequence[str]) -> str:
    """Numbers of cases by state, and the queries without a case, in one line."""
    states = Counter(case_result.state for case_result in case_results)
    counts = ", ".join(f"{states[state]} {state}" for state in ("ok", "failed", "broken") if states[state])
    text = f"{counted(len(case_results), 'case')}: {counts or 'none run'}"
    if states["failed"]:
        text += " (- expected, + actual)"
    if untested:
        text += f"; without a case: {', '.join(untested)}"
    return text


def to_junit(case_results: Sequence[CaseResult]) -> bytes:
    """JUnit XML with a test suite for each file; times in seconds."""
    root = ET.Element("testsuites", name="poller test")
    for path, group in groupby(case_results, key=lambda case_result: str(case_result.loaded_case.path)):
        of_file = list(group)
        suite = ET.SubElement(root, "testsuite", attrib={"name": _xml(path), **_counts(of_file)})
        for case_result in of_file:
            loaded_case = case_result.loaded_case
            element = ET.SubElement(
                suite, "testcase", classname=loaded_case.query.name, name=_xml(loaded_case.case.name),
                file=_xml(path), line=str(loaded_case.line), time=f"{case_result.seconds:.3f}",
            )  # fmt: skip
            if case_result.broken:
                message = _xml(case_result.broken)
                ET.SubElement(element, "error", message=message).text = message
            elif case_result.lines:
                text = "\n".join(map(str, case_result.lines))
                first = next(str(line) for line in case_result.lines if line.mark in "-+")
                ET.SubElement(element, "failure", message=_xml(first)).text = _xml(text)
    root.attrib.update(_counts(case_results))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _counts(case_results: Sequence[CaseResult]) -> dict[str, str]:
    states = Counter(case_result.state for case_result in case_results)
    return {
        "tests": str(len(case_results)),
        "failures": str(states["failed"]),
        "errors": str(states["broken"]),
        "time": f"{sum(case_result.seconds for case_result in case_results):.3f}",
    }


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", redact(text))


def _plain(text: str) -> str:
    return one_line(redact(text))

"""Reports of test results: text with differences, and JUnit XML for CI."""

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
from poller.tools.test.comparison import Judgement

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"ok": "green", "failed": "red", "broken": "red", "-": "red", "+": "green", "#": "dim", " ": ""}
_INDENT = " " * 8
_NOT_IN_XML = re.compile("[^\\t\\n\\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that an XML 1.0 document must not contain (specification, 2.2)."""
_MOST_LINES = 200


def print_judgement(console: Console, judgement: Judgement) -> None:
    """Print one case, followed by its difference if it is not ok."""
    from rich.text import Text

    trial = judgement.trial
    where = trial.place if judgement.state != "ok" else str(trial.path)
    line = Text.assemble((f"{judgement.state:6}", _STYLES[judgement.state]), f"  {_plain(where)}: ")
    line.append(_plain(trial.case.name))
    if judgement.state != "ok":
        line.append(f" ({trial.query.name})", "dim")
    for text, style in _details(judgement):
        line.append(f"\n{_INDENT}{text}", style)
    # Never fold a line of the difference.
    console.print(line, soft_wrap=True)


def _details(judgement: Judgement) -> Iterator[tuple[str, str]]:
    if judgement.broken:
        yield _plain(judgement.broken), "red"
    for line in judgement.lines[:_MOST_LINES]:
        yield _plain(str(line)), _STYLES[line.mark]
    if (more := len(judgement.lines) - _MOST_LINES) > 0:
        yield f"# {more} more lines", "dim"


def summary(judgements: Sequence[Judgement], untried: Sequence[str]) -> str:
    """Numbers of cases by state, and the queries without a case, in one line."""
    states = Counter(judgement.state for judgement in judgements)
    counts = ", ".join(f"{states[state]} {state}" for state in ("ok", "failed", "broken") if states[state])
    text = f"{counted(len(judgements), 'case')}: {counts or 'none run'}"
    if states["failed"]:
        text += " (- expected, + actual)"
    if untried:
        text += f"; without a case: {', '.join(untried)}"
    return text


def to_junit(judgements: Sequence[Judgement]) -> bytes:
    """JUnit XML with a test suite for each file; times in seconds."""
    root = ET.Element("testsuites", name="poller test")
    for path, group in groupby(judgements, key=lambda judgement: str(judgement.trial.path)):
        of_file = list(group)
        suite = ET.SubElement(root, "testsuite", attrib={"name": _xml(path), **_counts(of_file)})
        for judgement in of_file:
            trial = judgement.trial
            element = ET.SubElement(
                suite, "testcase", classname=trial.query.name, name=_xml(trial.case.name),
                file=_xml(path), line=str(trial.line), time=f"{judgement.seconds:.3f}",
            )  # fmt: skip
            if judgement.broken:
                message = _xml(judgement.broken)
                ET.SubElement(element, "error", message=message).text = message
            elif judgement.lines:
                text = "\n".join(map(str, judgement.lines))
                first = next(str(line) for line in judgement.lines if line.mark in "-+")
                ET.SubElement(element, "failure", message=_xml(first)).text = _xml(text)
    root.attrib.update(_counts(judgements))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _counts(judgements: Sequence[Judgement]) -> dict[str, str]:
    states = Counter(judgement.state for judgement in judgements)
    return {
        "tests": str(len(judgements)),
        "failures": str(states["failed"]),
        "errors": str(states["broken"]),
        "time": f"{sum(judgement.seconds for judgement in judgements):.3f}",
    }


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", redact(text))


def _plain(text: str) -> str:
    return one_line(redact(text))

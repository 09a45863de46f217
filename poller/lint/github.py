"""Write complaints as workflow commands, which GitHub shows beside the line that they are about.

Source: GitHub Docs, "Workflow commands for GitHub Actions"; what is escaped, and how, is in actions/toolkit.
"""

from __future__ import annotations

from collections.abc import Iterable

from poller.lint.complaint import Complaint, Level
from poller.lint.whereabouts import relative
from poller.printable import lines

_COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}
_IN_TEXT = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES = {**_IN_TEXT, ":": "%3A", ",": "%2C"}


def to_github(complaints: Iterable[Complaint]) -> str:
    """One line a complaint."""
    return "".join(f"{_command(complaint)}\n" for complaint in complaints)


def _command(complaint: Complaint) -> str:
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
    text = f"{path}: {complaint.what}" if path else complaint.what
    return f"::{_COMMANDS[complaint.level]} {told}::{_escaped(text, _IN_TEXT)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in lines(text))

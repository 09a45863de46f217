"""Error messages for invalid YAML, each with its position and its fix."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from poller.model.diagnostics import Diagnostic, Place, invalid


def of_syntax(error: yaml.MarkedYAMLError, text: str, file: Path) -> Diagnostic:
    """Return the problem at which the parser stopped; `text` is the content of `file`."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem, context = error.problem or "", error.context or ""
    lines = _lines(text)
    at = lines[line - 1][column - 1 : column] if line <= len(lines) else ""
    if at == "\t":
        message = "a tab cannot indent YAML; write spaces"
    elif "cannot start any token" in problem and at:
        message = f"a value cannot begin with {at}; write it in quotes"
    elif "mapping values are not allowed" in problem:
        message = "a key is not allowed here; check the indentation, or quote a text that contains `: `"
    elif "block scalar" in context:
        message = "after | or > a text begins on the next line; quote a value that begins with | or >"
    elif "scanning an alias" in context or "scanning an anchor" in context:
        message = "a value that begins with * or & names an anchor; quote a text"
    else:
        since = f", {context} that begins on line {error.context_mark.line + 1}" if error.context_mark else ""
        message = f"is not YAML: {problem}{since}"
    return invalid(Place(file, line, None, column), message)


def of_character(error: yaml.reader.ReaderError, text: str, file: Path) -> Diagnostic:
    """Return the problem of a character that YAML does not allow; `text` is the content of `file`."""
    code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "\0")
    before = text[: max(text.find(chr(code)), 0)]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    message = f"contains the character U+{code:04X}, which YAML does not allow; omit it"
    return invalid(Place(file, line, None, column), message)


def _lines(text: str) -> list[str]:
    # The line breaks of YAML; str.splitlines() would also split at a form feed.
    return re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text)

"""Diagnostic of a file, a setting or a server: severity, rule, place, subject, message and advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from poller.model.path import PathKey, format_path

Severity = Literal["error", "warning", "note", "ok", "skip"]
"""Only an error fails a command. `ok`: the check passed; `skip`: it does not apply or could not run."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; lines and columns count from 1."""

    file: Path
    line: int | None = None
    path: tuple[PathKey, ...] | None = ()
    """The path of the key; empty for the whole file, None for a character of a text without keys."""
    column: int | None = None
    """Only the text form of a place without keys contains the column."""

    def __str__(self) -> str:
        numbers = (self.line, self.column if self.path is None else None)
        text = ":".join([str(self.file), *(str(number) for number in numbers if number is not None)])
        return f"{text}: {self.key}" if self.path else text

    @property
    def key(self) -> str:
        """The path as text: `queries[0].sql`."""
        return format_path(self.path or ())


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Result of one check: a problem with its fix, or the absence of a problem."""

    severity: Severity
    rule: str
    """The check, such as `same-series` of `poller check` or `lag` of `poller doctor`."""
    message: str
    advice: str | None = None
    """The fix, if `message` does not contain it."""
    subject: str | None = None
    """The item that was checked: a query, a metric, a variable or an option."""
    place: Place | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    """The result for programs: seconds, counts and names."""
    target: str = ""
    """The target that was checked; empty for the files and for the only database."""

    @property
    def where(self) -> str:
        """The place, or the subject if no file has the problem."""
        return str(self.place or self.subject)

    @property
    def line(self) -> int:
        """The line in the file; 0 if the whole file or no file has the problem."""
        return (self.place.line if self.place else None) or 0

    @property
    def sentence(self) -> str:
        """The message, after the target if there is one."""
        return f"{self.target}: {self.message}" if self.target else self.message

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}"


def invalid(where: Place | str, message: str) -> Diagnostic:
    """Return an error of the configuration; `where` is a place in a file, a variable or an option."""
    if isinstance(where, Place):
        return Diagnostic("error", "query-file", message, place=where)
    return Diagnostic("error", "query-file", message, subject=where)


def failed(diagnostics: Iterable[Diagnostic]) -> bool:
    """Return whether any diagnostic is an error."""
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)

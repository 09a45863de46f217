"""Diagnostic of `check`: its severity, rule, place, problem and fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poller.model.errors import Place, Problem

Level = Literal["error", "warning", "note"]
"""An error makes `check` fail; the others do not."""
Rule = Literal[
    "query-file", "database", "rejected", "privilege", "column", "unused-column", "not-numeric",
    "attribute-type", "attribute-values", "requires", "max-cost", "sequential-scan", "missing-index",
    "statistics", "estimate", "volatile-function", "same-series", "own-setting", "own-backend",
    "attribute-text",
]  # fmt: skip

RULES: dict[Rule, str] = {
    "query-file": "A query file and its cases must be valid, alone and together with the other files.",
    "database": "The database must be reachable.",
    "rejected": "The server must accept the statement.",
    "privilege": "The role must have the privileges that the statement requires.",
    "column": "The result must have each declared column once.",
    "unused-column": "Each column of the result should be a value or an attribute of a metric.",
    "not-numeric": "A value column must be of a numeric type.",
    "attribute-type": "An attribute column should have few distinct values.",
    "attribute-values": "Declared attribute values should be the values of the column's type.",
    "requires": "A query is sent only if its requirements are met.",
    "max-cost": "The planner's cost must not exceed the limit.",
    "sequential-scan": "A large table should not be read completely every few minutes.",
    "missing-index": "A selective condition on a large table should have an index.",
    "statistics": "A table should be analysed before its plans are judged.",
    "estimate": "An estimate should be cheaper than the exact query.",
    "volatile-function": "A function that a query calls should be declared STABLE or IMMUTABLE.",
    "same-series": "Two queries should not report the same series.",
    "own-setting": "A query should not read a setting that the poller sets for its own session.",
    "own-backend": "A query over backends or locks should exclude the poller's own backend.",
    "attribute-text": "A fixed attribute should be exported as it is written.",
}
"""The requirement of each rule."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One line of `check`."""

    rule: Rule
    level: Level
    message: str
    """The problem and its fix."""
    place: Place | None = None
    where: str = ""
    """Location if `place` is None: the name of a variable or option."""
    query: str | None = None

    @property
    def place_text(self) -> str:
        return str(self.place) if self.place else self.where

    def __str__(self) -> str:
        return f"{self.place_text}: {self.message}"


def of_problem(problem: Problem) -> Diagnostic:
    """Return the diagnostic for a problem in the files themselves."""
    return Diagnostic("query-file", "error", problem.message, problem.place, problem.where)


def failed(diagnostics: Sequence[Diagnostic]) -> bool:
    """Return whether any diagnostic is an error."""
    return any(diagnostic.level == "error" for diagnostic in diagnostics)


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """Return the counts by level: `1 error, 2 warnings, 0 notes`."""
    count = Counter(diagnostic.level for diagnostic in diagnostics)
    levels: tuple[Level, ...] = ("error", "warning", "note")
    return ", ".join(f"{count[level]} {level}{'' if count[level] == 1 else 's'}" for level in levels)

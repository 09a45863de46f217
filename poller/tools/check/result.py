"""Rules of `check`, and the result of checking one query against a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poller.model.diagnostics import Diagnostic, Place, failed

RULES = {
    "query-file": "A query file and its cases must be valid, alone and together with the other files.",
    "targets-file": "A targets file must be valid, alone and together with the other targets files.",
    "unused-target": "Each target should be selected by a query.",
    "database": "The database must be reachable.",
    "rejected": "The server must accept the statement.",
    "privilege": "The role must have the privileges that the statement requires.",
    "column": "The result must have each declared column once.",
    "unused-column": "Each column of the result should be a value or an attribute of a metric.",
    "not-numeric": "A value column must be of a numeric type.",
    "not-a-time": "A time column must be of the type timestamptz.",
    "attribute-type": "An attribute column should have few distinct values.",
    "attribute-values": "Declared attribute values should be the values of the column's type.",
    "requires": "A query is sent only if its requirements are met.",
    "max-cost": "The planner's cost must not exceed max_cost.",
    "sequential-scan": "A large table should not be read completely every few minutes.",
    "missing-index": "A selective condition on a large table should have an index.",
    "statistics": "A table should be analysed before its plans are judged.",
    "estimate": "An estimate should be cheaper than the exact query.",
    "volatile-function": "A function that a query calls should be declared STABLE or IMMUTABLE.",
    "same-series": "Two queries should not report the same series.",
    "open-bucket": "A row should be exported only when its bucket is over.",
    "old-times": "A backend should accept and find data points with the time of their rows.",
    "own-setting": "A query should not read a setting that the poller sets for its own session.",
    "search-path": "Each schema of a query's search_path should exist.",
    "own-backend": "A query over backends or locks should exclude the poller's own backend.",
    "attribute-text": "A fixed attribute should be exported as it is written.",
}
"""The requirement of each rule."""


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """State, cost, columns and diagnostics of one query."""

    query: str
    """Name of the query."""
    place: Place
    state: Literal["ok", "not_sent", "refused"]
    """`not_sent`: the server does not meet its requirements; `refused`: the query would fail."""
    cost: float | None = None
    max_cost: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Type of each result column."""
    estimate_answers: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()
    target: str = ""
    """The target on which it was checked; empty for the only database."""

    def lines(self) -> list[Diagnostic]:
        """The diagnostics; an accepted query with its cost and columns comes first."""
        if self.state != "ok" or failed(self.diagnostics):
            return list(self.diagnostics)
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        limit = "" if self.max_cost is None or self.estimate_answers else f" of {self.max_cost:,.0f}"
        summary = columns if self.cost is None else f"cost {self.cost:,.0f}{limit}; {columns}"
        place = Place(self.place.file, self.place.line)
        return [Diagnostic("ok", "accepted", f"{self.query}: {summary}", place=place), *self.diagnostics]

    def data(self) -> dict[str, object]:
        """The result for programs."""
        return {
            **({"target": self.target} if self.target else {}),
            "query": self.query,
            "file": str(self.place.file),
            "line": self.place.line,
            "state": self.state,
            "cost": self.cost,
            "max_cost": self.max_cost,
            "estimate_answers": self.estimate_answers,
            "columns": dict(self.columns),
        }

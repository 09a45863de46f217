"""Result of checking one query against a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poller.model.diagnostics import Diagnostic
from poller.model.errors import Place


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """State, cost, columns and diagnostics of one query."""

    query: str
    """Name of the query."""
    place: Place
    state: Literal["ok", "not_sent", "refused"]
    """`not_sent`: the server does not meet its requirements; `refused`: the query would fail."""
    cost: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Type of each result column."""
    estimate_answers: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def summary(self) -> str:
        """Cost and columns as text."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        return columns if self.cost is None else f"cost {self.cost:,.0f}; {columns}"

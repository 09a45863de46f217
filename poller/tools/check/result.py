"""Result of checking one query against a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poller.model.diagnostics import Diagnostic
from poller.model.errors import Place


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """What is to say of one query."""

    query: str
    """Its name."""
    place: Place
    state: Literal["ok", "not_sent", "refused"]
    """`not_sent`: its requirements are not met here; `refused`: it would fail."""
    cost: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Type of each column of its result."""
    estimate_answers: bool = False
    complaints: tuple[Diagnostic, ...] = ()

    @property
    def summary(self) -> str:
        """Cost and columns in words."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        return columns if self.cost is None else f"cost {self.cost:,.0f}; {columns}"

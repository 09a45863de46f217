"""Tell what of a file could not be brought along, where it stands, and what to do instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poller.yamlfile import Key, spoken

SUMMARY = "give the query a row for each quantile, with the quantile as a label"
HISTOGRAM = "give the query a row for each bucket, with its bound as the label le"
"""What to do instead of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file of another tool."""

    file: Path
    line: int
    path: tuple[Key, ...] = ()

    def __str__(self) -> str:
        told = spoken(self.path)
        return f"{self.file}:{self.line}: {told}" if told else f"{self.file}:{self.line}"


@dataclass(slots=True)
class Losses:
    """What was lost and what was changed, each told once."""

    _lost: dict[str, Place] = field(default_factory=dict)
    _changed: dict[str, Place] = field(default_factory=dict)

    def lost(self, place: Place, what: str, instead: str) -> None:
        """Something that the imported files do not do, though the original did."""
        self._lost.setdefault(f"{place}: not kept: {what}; {instead}", place)

    def changed(self, place: Place, what: str) -> None:
        """Something that is kept in another form, or is decided elsewhere here."""
        self._changed.setdefault(f"{place}: changed: {what}", place)

    @property
    def counts(self) -> tuple[int, int]:
        """How many things were lost, and how many changed."""
        return len(self._lost), len(self._changed)

    def lines(self, files: Sequence[Path]) -> list[str]:
        """All of it in the order of `files` and their lines; what is in other files comes behind."""
        order = {file: number for number, file in enumerate(files)}
        told = [*self._lost.items(), *self._changed.items()]
        told.sort(key=lambda one: (order.get(one[1].file, len(order)), str(one[1].file), one[1].line))
        return [line for line, _ in told]

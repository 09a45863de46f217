"""Report of what an import could not convert: location, reason and alternative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poller.model.path import Key, format_path

SUMMARY = "give the query a row for each quantile, with the quantile as a label"
HISTOGRAM = "give the query a row for each bucket, with its bound as the label le"
"""Alternatives to summaries and histograms."""


@dataclass(frozen=True, slots=True)
class Place:
    """Location in a file of another tool."""

    file: Path
    line: int
    path: tuple[Key, ...] = ()

    def __str__(self) -> str:
        told = format_path(self.path)
        return f"{self.file}:{self.line}: {told}" if told else f"{self.file}:{self.line}"


@dataclass(slots=True)
class Losses:
    """Losses, each reported with its location, and changes; equal changes are reported once."""

    _lost: dict[str, Place] = field(default_factory=dict)
    _changed: dict[tuple[Place, str], None] = field(default_factory=dict)
    _warned: dict[tuple[Place, str], None] = field(default_factory=dict)

    def lost(self, place: Place, what: str, instead: str) -> None:
        """Add a feature of the original that the imported queries lack."""
        self._lost.setdefault(f"{place}: not kept: {what}; {instead}", place)

    def changed(self, place: Place, what: str) -> None:
        """Add a feature that is converted to another form or is configured elsewhere here."""
        self._changed.setdefault((place, what))

    def has_lost(self, within: Place) -> bool:
        """Return whether anything inside `within` is lost."""
        depth = len(within.path)
        return any(
            (place.file, place.path[:depth]) == (within.file, within.path) for place in self._lost.values()
        )

    def warned(self, place: Place, what: str) -> None:
        """Add a warning of `poller check` about the written queries."""
        self._warned.setdefault((place, what))

    def forget_changes(self, within: Place) -> None:
        """Remove the changes inside `within`, because it is not imported after all."""
        depth = len(within.path)
        self._changed = {
            (place, what): None
            for place, what in self._changed
            if (place.file, place.path[:depth]) != (within.file, within.path)
        }

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of losses, changes and warnings."""
        return len(self._lost), len(self._changed), len(self._warned)

    def lines(self, files: Sequence[Path]) -> list[str]:
        """Return all lines, in the order of `files` and their lines; other files come last."""
        order = {file: number for number, file in enumerate(files)}

        def position(place: Place) -> tuple[int, str, int]:
            return order.get(place.file, len(order)), str(place.file), place.line

        changed: dict[str, list[Place]] = {}
        for place, what in sorted(self._changed, key=lambda one: position(one[0])):
            changed.setdefault(what, []).append(place)
        told = list(self._lost.items())
        told += [(f"{place}: warning: {what}", place) for place, what in self._warned]
        for what, places in changed.items():
            often = f" ({len(places)} times)" if len(places) > 1 else ""
            told.append((f"{places[0]}: changed: {what}{often}", places[0]))
        return [line for line, _ in sorted(told, key=lambda one: position(one[1]))]

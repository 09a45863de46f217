"""Report of what an import could not convert: location, reason and alternative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poller.model.path import Key, format_path

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
        told = format_path(self.path)
        return f"{self.file}:{self.line}: {told}" if told else f"{self.file}:{self.line}"


@dataclass(slots=True)
class Losses:
    """What was lost, each told with its place, and what was changed, told once where several say the same."""

    _lost: dict[str, Place] = field(default_factory=dict)
    _changed: dict[tuple[Place, str], None] = field(default_factory=dict)
    _warned: dict[tuple[Place, str], None] = field(default_factory=dict)

    def lost(self, place: Place, what: str, instead: str) -> None:
        """Something that the imported files do not do, though the original did."""
        self._lost.setdefault(f"{place}: not kept: {what}; {instead}", place)

    def changed(self, place: Place, what: str) -> None:
        """Something that is kept in another form, or is decided elsewhere here."""
        self._changed.setdefault((place, what))

    def has_lost(self, within: Place) -> bool:
        """Whether anything inside `within` is lost."""
        depth = len(within.path)
        return any(
            (place.file, place.path[:depth]) == (within.file, within.path) for place in self._lost.values()
        )

    def warned(self, place: Place, what: str) -> None:
        """Something that `poller check` warns of in what is written."""
        self._warned.setdefault((place, what))

    def forget_changes(self, within: Place) -> None:
        """Tell of no change to what is inside `within`, and is not imported after all."""
        depth = len(within.path)
        self._changed = {
            (place, what): None
            for place, what in self._changed
            if (place.file, place.path[:depth]) != (within.file, within.path)
        }

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many things were lost, how many changed, and how many warnings there are."""
        return len(self._lost), len(self._changed), len(self._warned)

    def lines(self, files: Sequence[Path]) -> list[str]:
        """All of it in the order of `files` and their lines; what is in other files comes behind."""
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

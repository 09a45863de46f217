"""Report of what an import could not convert: location, reason and alternative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poller.model.diagnostics import Place

SUMMARY = "return one row per quantile, with the quantile as a label"
HISTOGRAM = "return one row per bucket, with its upper bound as the label le"
"""Alternatives to summaries and histograms."""


@dataclass(slots=True)
class Losses:
    """Losses, each reported with its location, and changes; equal changes are reported once."""

    _lost: dict[str, Place] = field(default_factory=dict)
    _changed: dict[tuple[Place, str], None] = field(default_factory=dict)
    _warned: dict[tuple[Place, str], None] = field(default_factory=dict)

    def add_loss(self, place: Place, message: str, advice: str) -> None:
        """Add a feature of the original that the imported queries lack."""
        self._lost.setdefault(f"{place}: not converted: {message}; {advice}", place)

    def add_change(self, place: Place, message: str) -> None:
        """Add a feature that is converted to another form or is configured elsewhere."""
        self._changed.setdefault((place, message))

    def has_losses(self, within: Place) -> bool:
        """Return whether anything inside `within` is lost."""
        return any(_is_inside(place, within) for place in self._lost.values())

    def add_warning(self, place: Place, message: str) -> None:
        """Add a warning of `poller check` about the written queries."""
        self._warned.setdefault((place, message))

    def forget_changes(self, within: Place) -> None:
        """Remove the changes inside `within`, which is not imported."""
        self._changed = {
            (place, message): None for place, message in self._changed if not _is_inside(place, within)
        }

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of losses, changes and warnings."""
        return len(self._lost), len(self._changed), len(self._warned)

    def lines(self, files: Sequence[Path]) -> list[str]:
        """Return all lines, in the order of `files` and their lines; other files come last."""
        order = {file: number for number, file in enumerate(files)}

        def position(place: Place) -> tuple[int, str, int]:
            return order.get(place.file, len(order)), str(place.file), place.line or 0

        changed: dict[str, list[Place]] = {}
        for place, message in sorted(self._changed, key=lambda item: position(item[0])):
            changed.setdefault(message, []).append(place)
        entries = list(self._lost.items())
        entries += [(f"{place}: warning: {message}", place) for place, message in self._warned]
        for message, places in changed.items():
            count = f" ({len(places)} times)" if len(places) > 1 else ""
            entries.append((f"{places[0]}: changed: {message}{count}", places[0]))
        return [line for line, _ in sorted(entries, key=lambda entry: position(entry[1]))]


def _is_inside(place: Place, outer: Place) -> bool:
    path, inner = outer.path or (), place.path or ()
    return (place.file, inner[: len(path)]) == (outer.file, path)

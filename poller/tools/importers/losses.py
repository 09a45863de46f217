"""Report of what an import could not convert: location, reason and alternative."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from poller.model.diagnostics import Diagnostic, Place, Severity

SUMMARY = "return one row per quantile, with the quantile as a label"
"""Alternative to summaries."""
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(slots=True)
class Losses:
    """Losses (errors), changes (notes) and warnings, each with its location; equal ones are reported once."""

    _diagnostics: dict[tuple[Place, str], Diagnostic] = field(default_factory=dict)

    def add_loss(self, place: Place, message: str, advice: str) -> None:
        """Add a feature of the original that the imported queries lack."""
        self._add("error", place, f"not converted: {message}; {advice}")

    def add_change(self, place: Place, message: str) -> None:
        """Add a feature that is converted to another form or is configured elsewhere."""
        self._add("note", place, f"changed: {message}")

    def add_warning(self, place: Place, message: str) -> None:
        """Add a warning of `poller check` about the written queries."""
        self._add("warning", place, f"warning: {message}")

    def _add(self, severity: Severity, place: Place, message: str) -> None:
        diagnostic = Diagnostic(severity, "import", message, place=place)
        self._diagnostics.setdefault((place, message), diagnostic)

    def has_losses(self, within: Place) -> bool:
        """Return whether anything inside `within` is lost."""
        return any(
            diagnostic.severity == "error" and _is_inside(place, within)
            for (place, _), diagnostic in self._diagnostics.items()
        )

    def forget_changes(self, within: Place) -> None:
        """Remove the changes inside `within`, which is not imported."""
        self._diagnostics = {
            key: diagnostic
            for key, diagnostic in self._diagnostics.items()
            if diagnostic.severity != "note" or not _is_inside(key[0], within)
        }

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of losses, changes and warnings."""
        count = Counter(diagnostic.severity for diagnostic in self._diagnostics.values())
        return count["error"], count["note"], count["warning"]

    def diagnostics(self, files: Sequence[Path]) -> list[Diagnostic]:
        """Return all diagnostics, in the order of `files` and their lines; other files come last.

        A change with the same message in several places is reported at the first one, with their number.
        """
        order = {file: number for number, file in enumerate(files)}

        def position(item: tuple[tuple[Place, str], Diagnostic]) -> tuple[int, str, int, int]:
            (place, _), diagnostic = item
            number = order.get(place.file, len(order))
            return number, str(place.file), place.line or 0, _ORDER.index(diagnostic.severity)

        equal: dict[object, list[Diagnostic]] = {}
        for (place, message), diagnostic in sorted(self._diagnostics.items(), key=position):
            key = message if diagnostic.severity == "note" else (place, message)
            equal.setdefault(key, []).append(diagnostic)
        return [
            replace(first, message=f"{first.message} ({1 + len(others)} times)") if others else first
            for first, *others in equal.values()
        ]


def _is_inside(place: Place, outer: Place) -> bool:
    path, inner = outer.path or (), place.path or ()
    return (place.file, inner[: len(path)]) == (outer.file, path)

"""Results of the measurements, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass
class Results:
    """Samples by figure, load and program, each in the figure's unit."""

    about: dict[str, object] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, figure: str, load: str, program: str, *values: float) -> None:
        if not values:
            return  # a poll on the program's own schedule has no duration
        by_load = self.samples.setdefault(figure, {}).setdefault(load, {})
        by_load.setdefault(program, []).extend(values)

    def median(self, figure: str, load: str, program: str) -> float | None:
        values = self.samples.get(figure, {}).get(load, {}).get(program)
        return statistics.median(values) if values else None

    def as_json(self) -> dict[str, object]:
        """Return every figure with its median, its least and its greatest value."""
        figures = {
            figure: {
                load: {program: _spread(values) for program, values in by_program.items()}
                for load, by_program in by_load.items()
            }
            for figure, by_load in self.samples.items()
        }
        return {"about": self.about, "skipped": self.skipped, "figures": figures}

    def as_markdown(self, against: str, figures: Collection[str] = ()) -> str:
        """Return a table of medians, with the least and the greatest in brackets, and the ratio to `against`.

        It contains `figures`, or all of them.
        """
        selected = {name: loads for name, loads in self.samples.items() if not figures or name in figures}
        every = (
            name
            for by_load in selected.values()
            for programs_of_load in by_load.values()
            for name in programs_of_load
        )
        programs = list(dict.fromkeys(every))
        lines = [f"| | {' | '.join(programs)} |", f"|---|{'---|' * len(programs)}"]
        for figure, by_load in selected.items():
            for load, by_program in by_load.items():
                base = self.median(figure, load, against)
                cells = [_cell(by_program.get(name), base, own=name == against) for name in programs]
                lines.append(f"| {figure}, {load} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _spread(values: Sequence[float]) -> dict[str, object]:
    return {
        "median": _rounded(statistics.median(values)),
        "least": _rounded(min(values)),
        "greatest": _rounded(max(values)),
        "samples": len(values),
    }


def _cell(values: Sequence[float] | None, base: float | None, *, own: bool) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    cell = _formatted(middle)
    if len(values) > 1 and _formatted(min(values)) != _formatted(max(values)):
        cell += f" ({_formatted(min(values))}-{_formatted(max(values))})"
    if base and not own:
        cell += f" x{_formatted(middle / base)}"
    return cell


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _formatted(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 10 else f"{value:.1f}"

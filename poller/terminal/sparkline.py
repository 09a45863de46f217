"""Sparkline of a series, and the short history of values that it shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_BLOCKS = "▁▂▃▄▅▆▇█"
_LENGTH = 120


@dataclass(slots=True)
class History:
    """The newest values of one series, oldest first."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=_LENGTH))
    change: float = 0
    """The last difference between two different values; 0 if there was none."""

    def add(self, value: float) -> None:
        if self.values and value != self.values[-1]:
            self.change = value - self.values[-1]
        self.values.append(value)

    @property
    def latest(self) -> float:
        return self.values[-1]

    def line(self, width: int) -> str:
        """Return a sparkline of the newest values, at most `width` of them."""
        return sparkline(list(self.values)[-width:]) if width > 0 else ""


def sparkline(values: Sequence[float]) -> str:
    """Draw values as blocks between their minimum and maximum: [1, 2, 3] -> ▁▅█."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        return _BLOCKS[0] * len(values)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - low) / (high - low) * steps)] for value in values)


def number(value: float, width: int = 0) -> str:
    """Format a number for people (`1,234.5`); if that is wider than `width`, in short form (`173.6G`)."""
    text = f"{value:,.15g}"
    return text if not width or len(text) <= width else _short(value)


def change(value: float, width: int = 0) -> str:
    """Format a difference with its sign, short if wider than `width`; empty for 0."""
    text = f"{value:+,.15g}" if value else ""
    return text if not width or len(text) <= width else ("+" if value > 0 else "") + _short(value)


def _short(value: float) -> str:
    for power, sign in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if 10**power <= abs(value) < 10 ** (power + 3):
            return f"{value / 10**power:.4g}{sign}"
    return f"{value:.4g}"

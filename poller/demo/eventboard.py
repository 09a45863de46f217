"""Keep what a server told of its events and draw it: one line for each metric of the catalogue."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from poller.demo.board import table
from poller.events.catalog import declared
from poller.screen.history import sparkline

if TYPE_CHECKING:
    from rich.table import Table

Point = Mapping[str, Any]
"""As the receiver prints it."""

_HISTORY = 120
_WIDE = 110
"""Columns from which on there is room for what a number is made of."""
_FIRST = (
    *("message_sent", "http_request", "http_request_duration", "websocket_connections", "user_registered"),
    *("messages_fetched", "websocket_acks_flushed", "notification_sent", "attachment_uploaded"),
    *("rate_limit_decided", "health_checked", "inbox_overflowed", "prekeys_low", "key_taken_over"),
)
"""Events that are looked at first; the others follow in the catalogue's order, as far as there is room."""


@dataclass(slots=True)
class Told:
    """One metric, all of its series together."""

    unit: str
    value: float = 0
    """The sum of the series; of a histogram how often it was recorded, of a state the least."""
    total: float = 0
    """Of a histogram the sum of what was recorded."""
    shown: str = ""
    per_second: float | None = None
    """By the last two exports, of what only grows."""
    parts: Sequence[str] = ()
    """What the value is made of."""
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    """How much it grew in a second; of a histogram the mean in that time; of anything else its values."""
    at: float = 0
    """Seconds since 1970."""


class EventBoard:
    """The newest of every metric."""

    def __init__(self) -> None:
        names = {event: metric.name for event, metric in declared().items()}
        self._order = list(dict.fromkeys([*(names[event] for event in _FIRST), *names.values()]))
        self._told: dict[str, Told] = {}
        self.headline = ""

    @property
    def size(self) -> int:
        """How many metrics there are."""
        return len(self._told)

    def receive(self, points: Iterable[Point]) -> None:
        """Take in the points of one export."""
        metrics: dict[str, list[Point]] = {}
        for point in points:
            metrics.setdefault(point["metric"], []).append(point)
        for name, series in metrics.items():
            _take(self._told.setdefault(name, Told(series[0]["unit"])), series)

    def table(self, width: int, rows: int) -> Table:
        """At most so many lines; the metrics that tell of nothing are the first to go."""
        wide = width >= _WIDE
        drawn = table("EVENT", "VALUE>", "PER S>", "HISTORY", *(["OF WHICH"] if wide else []))
        for column, least in zip(drawn.columns, (34, 11, 7), strict=False):
            column.min_width = least  # or all of it would move whenever a number gets longer
        for name in self._chosen(rows):
            told = self._told[name]
            drawn.add_row(
                name,
                told.shown,
                _rate(told.per_second),
                sparkline(list(told.history)[-(20 if wide else max(8, width - 62)) :]),
                *([", ".join(told.parts)] if wide else []),
            )
        return drawn

    def lines(self) -> list[str]:
        """Every metric that tells of something, one a line, for a pipe."""
        return [
            f"{name} = {told.shown}" + "".join(f", {part}" for part in told.parts)
            for name, told in sorted(self._told.items())
            if self._tells(name)
        ]

    def _chosen(self, rows: int) -> list[str]:
        known = [name for name in self._order if name in self._told]
        chosen = sorted(known, key=lambda name: not self._tells(name))[:rows]
        return [name for name in known if name in chosen]

    def _tells(self, name: str) -> bool:
        return bool(self._told[name].value or self._told[name].parts)


def _take(told: Told, series: Sequence[Point]) -> None:
    values = [point["value"] for point in series]
    at = max(point["time_unix_nano"] for point in series) / 1e9
    before = told.value, told.total, told.at
    told.at = at
    if series[0]["kind"] == "histogram":
        told.value, told.total = sum(one["count"] for one in values), sum(one["sum"] for one in values)
        told.shown = f"mean {_measured(told.total / told.value, told.unit)}" if told.value else ""
        told.parts = [f"{told.value:,} times"] if told.value else []
    elif series[0]["kind"] == "gauge":
        told.value = min(values)
        told.parts = [f"{part} {point['value']}" for point in series for part in point["attributes"].values()]
    else:
        told.value = sum(values)
        told.parts = _by_attribute(series)
    told.shown = told.shown if series[0]["kind"] == "histogram" else f"{told.value:,}"
    if series[0]["kind"] != "histogram" and not series[0]["monotonic"]:
        told.history.append(told.value)
    elif 0 < before[2] < at and told.value >= before[0]:
        _grow(told, told.value - before[0], told.total - before[1], at - before[2])


def _grow(told: Told, count: float, total: float, seconds: float) -> None:
    told.per_second = count / seconds
    if not told.total:
        told.history.append(told.per_second)
    elif count:
        told.history.append(total / count)


def _by_attribute(series: Sequence[Point]) -> list[str]:
    """`failure 1, success 12`; of requests by the first digit of their status."""
    parts: Counter[str] = Counter()
    for point in series:
        attributes = point["attributes"]
        if "route" in attributes:
            parts[f"{attributes['status'][:1]}xx"] += point["value"]
        else:
            parts.update({str(value): point["value"] for value in attributes.values()})
    return [f"{part} {value:,}" for part, value in sorted(parts.items()) if value]


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return ""
    return f"{per_second:,.1f}" if per_second < 1000 else f"{per_second:,.0f}"


def _measured(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "By":
        return f"{value / 1000:,.0f} kB"
    return f"{value:,.1f}"

"""Screen of the demo: one line per series, and one per metric of the event catalogue."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from poller.events.catalog import declared
from poller.model.printable import one_line
from poller.terminal.sparkline import History, change, number, sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text


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
    text: str = ""
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
                told.text,
                _rate(told.per_second),
                sparkline(list(told.history)[-(20 if wide else max(8, width - 62)) :]),
                *([", ".join(told.parts)] if wide else []),
            )
        return drawn

    def lines(self) -> list[str]:
        """Every metric that tells of something, one a line, for a pipe."""
        return [
            f"{name} = {told.text}" + "".join(f", {part}" for part in told.parts)
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
        told.text = f"mean {_measured(told.total / told.value, told.unit)}" if told.value else ""
        told.parts = [f"{told.value:,} times"] if told.value else []
    elif series[0]["kind"] == "gauge":
        told.value = min(values)
        told.parts = [f"{part} {point['value']}" for point in series for part in point["attributes"].values()]
    else:
        told.value = sum(values)
        told.parts = _by_attribute(series)
    told.text = told.text if series[0]["kind"] == "histogram" else f"{told.value:,}"
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


Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series: the metric's name, and its attributes in order."""

_FIXED = 8
"""Lines that are there in any case: headlines, headings, spaces, the daemon's last line, the end."""


@dataclass(slots=True)
class Series(History):
    """The received values of one series, and their unit."""

    unit: str = ""


class Board:
    """Everything received so far, told apart by series."""

    def __init__(self, collector: str | None = None) -> None:
        """`collector` is where the points go instead of to us, who then have nothing to show."""
        self._collector = collector
        self.series: dict[Key, Series] = {}
        self.points = 0
        self.requests = 0
        self.invitation = ""
        """What to type to ask the database oneself; one line."""

    def receive(self, metric: str, unit: str, attributes: Mapping[str, object], value: float) -> None:
        """Take in one data point."""
        key = (metric, tuple(sorted((name, str(told)) for name, told in attributes.items())))
        self.series.setdefault(key, Series(unit=unit)).add(value)
        self.points += 1

    def draw(
        self,
        headline: str,
        news: Sequence[str],
        width: int,
        height: int = 50,
        events: EventBoard | None = None,
    ) -> RenderableType:
        """The screen: what the queries measured, what a server told, what the poller says of itself.

        Then the daemon's last lines. What there is no room for is left out, of the least interest first.
        """
        from rich.console import Group

        shown: list[RenderableType] = [_line(headline, "bold")]
        if events is not None:
            shown.append(_line(events.headline, "bold"))
        told = f"pushed to {self._collector}, look there"
        if self._collector is None:
            told = f"{self.points:,} data points in {self.requests:,} requests"
            room = height - _FIXED - bool(self.invitation)
            measured = min(len(self._measured()), max(4, room // 2))
            room -= measured
            shown.insert(1, self._inventory(width, measured))
            if events is not None:
                shown.insert(2, _line(""))
                rows = min(events.size, room)
                room -= rows
                shown.append(events.table(width, rows))
            queries = self._queries()
            if queries.row_count + 2 <= room:
                shown += [_line(""), queries]
                room -= queries.row_count + 2
            news = news[-max(1, room + 1) :]
        invited = [_line(self.invitation, "dim")] if self.invitation else []
        return Group(
            *shown,
            _line(""),
            *(_line(line, "dim") for line in news),
            *invited,
            _line(f"q or Ctrl-C ends it and leaves nothing; {told}", "dim"),
        )

    def lines(self) -> list[str]:
        """The newest value of each measured series, one a line, for a pipe."""
        return [
            one_line(f"{metric}{_braces(attributes)} = {series.latest:.15g} {series.unit}".rstrip())
            for (metric, attributes), series in self._measured()
        ]

    def _measured(self) -> list[tuple[Key, Series]]:
        return [
            (key, series) for key, series in sorted(self.series.items()) if not key[0].startswith("poller.")
        ]

    def _inventory(self, width: int, rows: int) -> Table:
        drawn = table("METRIC", "VALUE>", "UNIT", "CHANGE>", "HISTORY")
        room = max(10, min(60, width - 68))
        for (metric, attributes), series in self._measured()[:rows]:
            drawn.add_row(
                _line(metric + _braces(attributes)),
                number(series.latest),
                _line(series.unit),
                change(series.change),
                series.line(room),
            )
        return drawn

    def _queries(self) -> Table:
        drawn = table("QUERY", "POLLED", "AGE>", "SERIES>", "STATE")
        names = sorted(
            {
                dict(attributes)[_QUERY]
                for metric, attributes in self.series
                if metric == "poller.query.series"
            }
        )
        for name in names:
            success, series = (
                self._latest(f"poller.query.{which}", name) for which in ("last_success", "series")
            )
            outcomes = ", ".join(
                f"{int(kept.latest)} {dict(attributes)['poller.state']}"
                for (metric, attributes), kept in sorted(self.series.items())
                if metric == "poller.polls" and dict(attributes)[_QUERY] == name
            )
            drawn.add_row(
                name,
                outcomes,
                "-" if success is None else f"{time.time() - success:.1f} s",
                "-" if series is None else f"{series:.0f}",
                self._state(name),
            )
        return drawn

    def _state(self, query: str) -> str:
        """The states of a query other than ok."""
        states = (
            dict(attributes)["poller.state"]
            for (metric, attributes), kept in sorted(self.series.items())
            if metric == "poller.query.state" and dict(attributes)[_QUERY] == query and kept.latest
        )
        return ", ".join(states) or "ok"

    def _latest(self, metric: str, query: str) -> float | None:
        kept = self.series.get((metric, ((_QUERY, query),)))
        return kept.latest if kept else None


_QUERY = "poller.query.name"


def table(*headings: str) -> Table:
    """A table without lines; headings that end in `>` stand on the right."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for heading in headings:
        right = heading.endswith(">")
        drawn.add_column(heading.removesuffix(">"), justify="right" if right else "left", no_wrap=True)
    return drawn


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def _braces(attributes: tuple[tuple[str, str], ...]) -> str:
    return "{" + ", ".join(f"{name}={value}" for name, value in attributes) + "}" if attributes else ""

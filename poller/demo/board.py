"""Keep what the receiver got and draw it: one line per series, with its value, change and history."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poller.printable import one_line
from poller.screen.history import History, change, number

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from poller.demo.eventboard import EventBoard

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

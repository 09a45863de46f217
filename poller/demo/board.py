"""Keep what the receiver got and draw it: one line per series, with its value, change and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poller.screen.history import History, change, number

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A series: the metric's name, and its attributes in order."""


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

    def receive(self, metric: str, unit: str, attributes: Mapping[str, object], value: float) -> None:
        """Take in one data point."""
        key = (metric, tuple(sorted((name, str(told)) for name, told in attributes.items())))
        self.series.setdefault(key, Series(unit=unit)).add(value)
        self.points += 1

    def draw(self, headline: str, news: Sequence[str], width: int) -> RenderableType:
        """The screen: what the queries measured, what the poller says of itself, the daemon's last lines."""
        from rich.console import Group
        from rich.text import Text

        shown: list[RenderableType] = [Text(f"the data points are pushed to {self._collector}: look there")]
        if self._collector is None:
            told = f"{self.points} data points in {self.requests} OTLP requests, as the receiver got them"
            shown = [Text(told, style="dim"), Text(""), self._inventory(width), Text(""), self._queries()]
        return Group(
            Text(headline, style="bold", no_wrap=True, overflow="ellipsis"),
            *shown,
            Text(""),
            *(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in news),
            Text("q or Ctrl-C ends the demo and removes everything it made.", style="dim"),
        )

    def lines(self) -> list[str]:
        """The newest value of each measured series, one a line, for a pipe."""
        return [
            f"{metric}{_braces(attributes)} = {series.latest:.15g} {series.unit}".rstrip()
            for (metric, attributes), series in sorted(self.series.items())
            if not metric.startswith("poller.")
        ]

    def _inventory(self, width: int) -> Table:
        table = _table("METRIC", "VALUE>", "UNIT", "CHANGE>", "HISTORY")
        room = max(10, min(60, width - 68))
        for (metric, attributes), series in sorted(self.series.items()):
            if metric.startswith("poller."):
                continue
            table.add_row(
                metric + _braces(attributes),
                number(series.latest),
                series.unit,
                change(series.change),
                series.line(room),
            )
        return table

    def _queries(self) -> Table:
        table = _table("QUERY", "POLLED", "AGE>", "SERIES>", "STALE")
        names = sorted(
            {dict(attributes)[_QUERY] for metric, attributes in self.series if metric == "poller.query.stale"}
        )
        for name in names:
            age, series, stale = (
                self._latest(f"poller.query.{which}", name) for which in ("age", "series", "stale")
            )
            outcomes = ", ".join(
                f"{int(kept.latest)} {dict(attributes)['poller.state']}"
                for (metric, attributes), kept in sorted(self.series.items())
                if metric == "poller.polls" and dict(attributes)[_QUERY] == name
            )
            table.add_row(
                name,
                outcomes,
                "-" if age is None else f"{age:.1f} s",
                "-" if series is None else f"{series:.0f}",
                "yes" if stale else "no",
            )
        return table

    def _latest(self, metric: str, query: str) -> float | None:
        kept = self.series.get((metric, ((_QUERY, query),)))
        return kept.latest if kept else None


_QUERY = "poller.query.name"


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for heading in headings:
        right = heading.endswith(">")
        table.add_column(heading.removesuffix(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _braces(attributes: tuple[tuple[str, str], ...]) -> str:
    return "{" + ", ".join(f"{name}={value}" for name, value in attributes) + "}" if attributes else ""

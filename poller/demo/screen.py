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


JsonPoint = Mapping[str, Any]
"""A data point in the receiver's JSON format."""

_HISTORY = 120
_WIDE = 110
"""Terminal width from which the column BREAKDOWN fits."""
_FIRST = (
    *("message_sent", "http_request", "http_request_duration", "websocket_connections", "user_registered"),
    *("messages_fetched", "websocket_acks_flushed", "notification_sent", "attachment_uploaded"),
    *("rate_limit_decided", "health_checked", "inbox_overflowed", "prekeys_low", "key_taken_over"),
)
"""Events at the top; the others follow in the catalogue's order while there is room."""


@dataclass(slots=True)
class MetricSummary:
    """The newest values of one metric, over all its series."""

    unit: str
    value: float = 0
    """The sum of the series; the count of a histogram; the minimum of a gauge."""
    total: float = 0
    """The sum of a histogram."""
    text: str = ""
    per_second: float | None = None
    """Rate between the last two exports, for counters and histograms."""
    parts: Sequence[str] = ()
    """The values of the attributes, formatted."""
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    """Rates of a counter, means of a histogram, or values of another metric."""
    at: float = 0
    """Time of the newest data point, in seconds since 1970."""


class EventBoard:
    """Table of the newest values of all metrics of the event catalogue."""

    def __init__(self) -> None:
        names = {event: metric.name for event, metric in declared().items()}
        self._order = list(dict.fromkeys([*(names[event] for event in _FIRST), *names.values()]))
        self._metrics: dict[str, MetricSummary] = {}
        self.headline = ""

    @property
    def size(self) -> int:
        """Number of metrics received."""
        return len(self._metrics)

    def receive(self, points: Iterable[JsonPoint]) -> None:
        """Update the metrics from the data points of one export."""
        exported: dict[str, list[JsonPoint]] = {}
        for point in points:
            exported.setdefault(point["metric"], []).append(point)
        for name, series in exported.items():
            _update(self._metrics.setdefault(name, MetricSummary(series[0]["unit"])), series)

    def table(self, width: int, rows: int) -> Table:
        """Return a table of at most `rows` metrics; metrics without an event are omitted first."""
        wide = width >= _WIDE
        grid = table("EVENT", "VALUE>", "PER S>", "HISTORY", *(["BREAKDOWN"] if wide else []))
        for column, least in zip(grid.columns, (34, 11, 7), strict=False):
            column.min_width = least  # otherwise the columns would move when a number becomes longer
        for name in self._chosen(rows):
            metric = self._metrics[name]
            grid.add_row(
                name,
                metric.text,
                _rate(metric.per_second),
                sparkline(list(metric.history)[-(20 if wide else max(8, width - 62)) :]),
                *([", ".join(metric.parts)] if wide else []),
            )
        return grid

    def lines(self) -> list[str]:
        """Return one line of text for each metric that has an event."""
        return [
            f"{name} = {metric.text}" + "".join(f", {part}" for part in metric.parts)
            for name, metric in sorted(self._metrics.items())
            if self._has_events(name)
        ]

    def _chosen(self, rows: int) -> list[str]:
        names = [name for name in self._order if name in self._metrics]
        chosen = sorted(names, key=lambda name: not self._has_events(name))[:rows]
        return [name for name in names if name in chosen]

    def _has_events(self, name: str) -> bool:
        return bool(self._metrics[name].value or self._metrics[name].parts)


def _update(metric: MetricSummary, series: Sequence[JsonPoint]) -> None:
    values = [point["value"] for point in series]
    at = max(point["time_unix_nano"] for point in series) / 1e9
    before = metric.value, metric.total, metric.at
    metric.at = at
    if series[0]["kind"] == "histogram":
        metric.value, metric.total = (
            sum(value["count"] for value in values),
            sum(value["sum"] for value in values),
        )
        metric.text = f"mean {_format(metric.total / metric.value, metric.unit)}" if metric.value else ""
        metric.parts = [f"{metric.value:,} times"] if metric.value else []
    elif series[0]["kind"] == "gauge":
        metric.value = min(values)
        metric.parts = [
            f"{part} {point['value']}" for point in series for part in point["attributes"].values()
        ]
    else:
        metric.value = sum(values)
        metric.parts = _by_attribute(series)
    metric.text = metric.text if series[0]["kind"] == "histogram" else f"{metric.value:,}"
    if series[0]["kind"] != "histogram" and not series[0]["monotonic"]:
        metric.history.append(metric.value)
    elif 0 < before[2] < at and metric.value >= before[0]:
        _add_rate(metric, metric.value - before[0], metric.total - before[1], at - before[2])


def _add_rate(metric: MetricSummary, count: float, total: float, seconds: float) -> None:
    metric.per_second = count / seconds
    if not metric.total:
        metric.history.append(metric.per_second)
    elif count:
        metric.history.append(total / count)


def _by_attribute(series: Sequence[JsonPoint]) -> list[str]:
    """Return texts such as `failure 1`; requests are grouped by the first digit of their status."""
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


def _format(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "By":
        return f"{value / 1000:,.0f} kB"
    return f"{value:,.1f}"


MetricSeries = tuple[str, tuple[tuple[str, str], ...]]
"""A series: the metric's name and its sorted attributes."""

_FIXED = 8
"""Lines that every screen has: headlines, table headings, blank lines, one log line, the last line."""


@dataclass(slots=True)
class ReceivedSeries(History):
    """The received values of one series, and their unit."""

    unit: str = ""


class DemoBoard:
    """The screen: all received values, by series."""

    def __init__(self, collector: str | None = None) -> None:
        """`collector` is the URL of another collector; the screen then has no values."""
        self._collector = collector
        self.series: dict[MetricSeries, ReceivedSeries] = {}
        self.points = 0
        self.requests = 0
        self.hint = ""
        """Shell command that lets the user query the database; one line."""

    def receive(self, metric: str, unit: str, attributes: Mapping[str, object], value: float) -> None:
        """Add one data point."""
        key = (metric, tuple(sorted((name, str(item)) for name, item in attributes.items())))
        self.series.setdefault(key, ReceivedSeries(unit=unit)).add(value)
        self.points += 1

    def draw(
        self,
        headline: str,
        log_lines: Sequence[str],
        width: int,
        height: int = 50,
        events: EventBoard | None = None,
    ) -> RenderableType:
        """Return the screen: query metrics, server events, the poller's own metrics, log lines.

        If the terminal is too small, the least important lines are omitted first.
        """
        from rich.console import Group

        parts: list[RenderableType] = [_line(headline, "bold")]
        if events is not None:
            parts.append(_line(events.headline, "bold"))
        status = f"exported to {self._collector}"
        if self._collector is None:
            status = f"{self.points:,} data points in {self.requests:,} requests"
            room = height - _FIXED - bool(self.hint)
            query_rows = min(len(self._query_series()), max(4, room // 2))
            room -= query_rows
            parts.insert(1, self._inventory(width, query_rows))
            if events is not None:
                parts.insert(2, _line(""))
                rows = min(events.size, room)
                room -= rows
                parts.append(events.table(width, rows))
            queries = self._queries()
            if queries.row_count + 2 <= room:
                parts += [_line(""), queries]
                room -= queries.row_count + 2
            log_lines = log_lines[-max(1, room + 1) :]
        hint = [_line(self.hint, "dim")] if self.hint else []
        return Group(
            *parts,
            _line(""),
            *(_line(line, "dim") for line in log_lines),
            *hint,
            _line(f"q or Ctrl-C stops the demo and removes it; {status}", "dim"),
        )

    def lines(self) -> list[str]:
        """Return one line of text with the newest value of each series of the queries."""
        return [
            one_line(f"{metric}{_braces(attributes)} = {series.latest:.15g} {series.unit}".rstrip())
            for (metric, attributes), series in self._query_series()
        ]

    def _query_series(self) -> list[tuple[MetricSeries, ReceivedSeries]]:
        return [
            (key, series) for key, series in sorted(self.series.items()) if not key[0].startswith("poller.")
        ]

    def _inventory(self, width: int, rows: int) -> Table:
        grid = table("METRIC", "VALUE>", "UNIT", "CHANGE>", "HISTORY")
        room = max(10, min(60, width - 68))
        for (metric, attributes), series in self._query_series()[:rows]:
            grid.add_row(
                _line(metric + _braces(attributes)),
                number(series.latest),
                _line(series.unit),
                change(series.change),
                series.line(room),
            )
        return grid

    def _queries(self) -> Table:
        grid = table("QUERY", "POLLED", "AGE>", "SERIES>", "STATE")
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
                f"{int(series.latest)} {dict(attributes)['poller.state']}"
                for (metric, attributes), series in sorted(self.series.items())
                if metric == "poller.polls" and dict(attributes)[_QUERY] == name
            )
            grid.add_row(
                name,
                outcomes,
                "-" if success is None else f"{time.time() - success:.1f} s",
                "-" if series is None else f"{series:.0f}",
                self._state(name),
            )
        return grid

    def _state(self, query: str) -> str:
        """Return the states of a query, without `ok` if there is another."""
        states = (
            dict(attributes)["poller.state"]
            for (metric, attributes), series in sorted(self.series.items())
            if metric == "poller.query.state" and dict(attributes)[_QUERY] == query and series.latest
        )
        return ", ".join(states) or "ok"

    def _latest(self, metric: str, query: str) -> float | None:
        series = self.series.get((metric, ((_QUERY, query),)))
        return series.latest if series else None


_QUERY = "poller.query.name"


def table(*headings: str) -> Table:
    """Return a table without borders; columns whose heading ends with `>` are aligned right."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for heading in headings:
        right = heading.endswith(">")
        grid.add_column(heading.removesuffix(">"), justify="right" if right else "left", no_wrap=True)
    return grid


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def _braces(attributes: tuple[tuple[str, str], ...]) -> str:
    return "{" + ", ".join(f"{name}={value}" for name, value in attributes) + "}" if attributes else ""

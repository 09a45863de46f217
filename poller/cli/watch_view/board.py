"""Table of all queries, sized to the terminal, with scrolling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poller.cli.watch_view.source import PollerStatus
from poller.model.printable import one_line
from poller.model.text import counted
from poller.polling.status import QueryStatus, Reading
from poller.terminal.sparkline import History, change, number

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_COLORS = {"ok": "green", "estimated": "blue", "skipped": "yellow", "failed": "red", "stale": "magenta"}
_WIDE = 132
"""Minimum width of the terminal, in cells, for separate columns with the metric's name and unit."""
_LOG_LINES = 4
_KEYS = "q quits"
_MORE_KEYS = "q quits, ↑ ↓ and space scroll"


@dataclass(frozen=True, slots=True)
class BoardColumn:
    """One column: its heading, and its width in cells."""

    heading: str
    width: int
    right: bool = False


def columns(width: int) -> dict[str, BoardColumn]:
    """Return the columns that fill `width` cells; the history gets the remaining width."""
    wide = width >= _WIDE
    columns_by_name = {
        "query": BoardColumn("QUERY", 24 if wide else 18),
        "state": BoardColumn("STATE", 19 if wide else 16),
        **({"metric": BoardColumn("METRIC", 26)} if wide else {}),
        "value": BoardColumn("VALUE", 15 if wide else 13, right=True),
        **({"unit": BoardColumn("UNIT", 12)} if wide else {}),
        "change": BoardColumn("CHANGE", 10 if wide else 9, right=True),
        "history": BoardColumn("HISTORY", 0),
        "age": BoardColumn("AGE", 4, right=True),
        "next": BoardColumn("NEXT", 4, right=True),
    }
    rest = width - sum(column.width for column in columns_by_name.values()) - (len(columns_by_name) - 1)
    columns_by_name["history"] = BoardColumn("HISTORY", max(0, rest))
    return columns_by_name


class Board:
    """History of all values, and the scroll position of the screen."""

    def __init__(self, *, of_target: bool = False) -> None:
        """`of_target` if a key leads back to the list of targets."""
        self._back = "Esc goes back, " if of_target else ""
        self._histories: dict[tuple[str, str, str], History] = {}
        self._polled: dict[str, float | None] = {}
        self._first = 0
        self._page = 1

    def take(self, poller: PollerStatus) -> None:
        """Add the values of each new poll to the histories."""
        for status in poller.statuses:
            if status.last_success == self._polled.get(status.query):
                continue
            self._polled[status.query] = status.last_success
            for reading in status.readings:
                self._histories.setdefault(_key(status, reading), History()).add(reading.value)

    def press(self, key: str) -> None:
        """Scroll by a key."""
        step = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page}.get(key, 0)
        if key in ("home", "end"):
            step = -self._first if key == "home" else 10**6
        self._first = max(0, self._first + step)

    def draw(self, poller: PollerStatus, now: float, width: int, height: int) -> RenderableType:
        """Return the whole screen; `now` is in seconds since 1970."""
        from rich.text import Text

        layout = columns(width)
        first, lines = head(poller), self._lines(poller, now, layout, width)
        first_line = max(0, len(poller.log_lines) - max(0, min(_LOG_LINES, height - 16)))
        log_lines = [Text(one_line(line), "dim") for line in poller.log_lines[first_line:]]
        room = max(1, height - len(first) - len(log_lines) - 4)
        self._page = max(1, room - 1)
        self._first = min(self._first, max(0, len(lines) - room))
        visible = lines[self._first : self._first + room]
        foot = self._foot(poller, len(lines), len(visible))
        whole = [*first, Text(""), headings(layout), *visible, Text(""), *log_lines, foot]
        return screen(whole, width)

    def table(self, poller: PollerStatus, now: float, width: int) -> RenderableType:
        """Return all lines at full height, for an output that is not a screen."""
        layout = columns(width)
        return page(poller, layout, self._lines(poller, now, layout, width))

    def _foot(self, poller: PollerStatus, lines: int, visible: int) -> Text:
        from rich.text import Text

        states = poller.states or Counter(status.state_name for status in poller.statuses)
        counts = ", ".join(f"{states[state]} {state}" for state in _COLORS if states.get(state))
        foot = Text(
            f"{counted(len(poller.statuses) + poller.omitted, 'query')}: {counts or 'none'}   ", "dim"
        )
        if visible < lines:
            foot.append(
                f"lines {self._first + 1}-{self._first + visible} of {lines}   {self._back}{_MORE_KEYS}"
            )
        else:
            foot.append(f"{self._back}{_KEYS}")
        return foot

    def _lines(
        self, poller: PollerStatus, now: float, layout: dict[str, BoardColumn], width: int
    ) -> list[Text]:
        from rich.text import Text

        lines = [line for status in poller.statuses for line in self._query(status, now, layout, width)]
        if poller.omitted:
            lines.append(
                Text(f"and {counted(poller.omitted, 'more query')}, omitted from the heartbeat", "dim")
            )
        return lines

    def _query(
        self, status: QueryStatus, now: float, layout: dict[str, BoardColumn], width: int
    ) -> Iterator[Text]:
        from rich.text import Text

        color = _COLORS.get(status.state_name, "")
        cells = {
            "query": Text(one_line(status.query), "bold"),
            "state": Text(one_line(status.state), color),
            "age": Text("-" if status.last_success is None else span(now - status.last_success)),
            "next": Text("-" if status.next_run is None else span(status.next_run - now)),
        }
        alone = status.series == 1 and len(status.readings) == 1 and not status.readings[0].attributes
        if alone:
            cells |= self._reading(status, status.readings[0], layout)
        elif status.series:
            cells["value"] = Text(f"{status.series} series", "dim")
        elif status.stale and status.last_success is not None:
            cells["value"] = Text("withheld", "magenta")
        yield row(cells, layout)
        if status.detail:
            yield from _folded(status.detail, color, width)
        if alone:
            return
        several = len({reading.metric for reading in status.readings}) > 1
        for reading in status.readings:
            name = f"{reading.metric} {reading.attributes}" if several else reading.attributes
            first = {"query": Text(f"  {one_line(name or reading.metric)}")}
            yield row(first | self._reading(status, reading, layout), layout, spread=True)
        if status.series > len(status.readings):
            yield Text(f"  and {status.series - len(status.readings)} more", "dim")

    def _reading(
        self, status: QueryStatus, reading: Reading, layout: dict[str, BoardColumn]
    ) -> dict[str, Text]:
        from rich.text import Text

        history = self._histories.get(_key(status, reading), History())
        return {
            "metric": Text(one_line(reading.metric)),
            "value": Text(number(reading.value, layout["value"].width)),
            "unit": Text(one_line(reading.unit)),
            "change": Text(change(history.change, layout["change"].width)),
            "history": Text(history.line(layout["history"].width), "cyan"),
        }


def head(poller: PollerStatus) -> list[Text]:
    """Return the lines above the table: the poller and the server."""
    from rich.text import Text

    lines = [Text(one_line(poller.state), "bold green" if poller.good else "bold red")]
    return [*lines, Text(one_line(poller.server))] if poller.server else lines


def headings(layout: dict[str, BoardColumn]) -> Text:
    """Return the line with the names of the columns."""
    from rich.text import Text

    return row({name: Text(column.heading, "bold cyan") for name, column in layout.items()}, layout)


def screen(lines: Sequence[Text], width: int) -> RenderableType:
    """Return the lines of a screen, none of which is wrapped."""
    from rich.console import Group

    for line in lines:
        line.truncate(width, overflow="ellipsis")
        line.no_wrap = True
    return Group(*lines)


def page(poller: PollerStatus, layout: dict[str, BoardColumn], lines: Sequence[Text]) -> RenderableType:
    """Return a table at full height, for an output that is not a screen; without headings if it is empty."""
    from rich.console import Group
    from rich.text import Text

    rows = [Text(""), headings(layout), *lines] if lines else []
    for line in rows:
        line.rstrip()
    return Group(*head(poller), *rows)


def span(seconds: float) -> str:
    """Format a time in at most four characters: 12s, 5m, 3h, 99d; `now` if it has passed."""
    if seconds < 0.5:
        return "now" if seconds < -1 else "0s"
    for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
        if seconds < {"s": 99.5, "m": 5970, "h": 356_400}[unit]:
            return f"{seconds / size:.0f}{unit}"
    return f"{min(seconds / 86400, 999):.0f}d"


def row(cells: dict[str, Text], layout: dict[str, BoardColumn], *, spread: bool = False) -> Text:
    """Return one line; with `spread`, the first cell also fills the second column."""
    from rich.text import Text

    line = Text()
    names = list(layout)
    for name in names:
        column = layout[name]
        width = column.width
        if spread and name == "state":
            continue
        if spread and name == "query":
            width += layout["state"].width + 1
        cell = cells.get(name, Text(""))
        if column.right:
            cell.truncate(width, overflow="ellipsis")
            cell.align("right", width)
        else:
            cell.truncate(width, overflow="ellipsis", pad=True)
        line.append_text(cell)
        if name != names[-1]:
            line.append(" ")
    return line


def _folded(detail: str, color: str, width: int) -> Iterator[Text]:
    """Wrap a sentence to at most two lines."""
    from rich.cells import chop_cells
    from rich.text import Text

    printable = one_line(detail)
    # Measured in cells, because a character may fill two cells or none.
    first = chop_cells(printable, max(2, width - 4))[0] if printable else ""
    rest = printable[len(first) :]
    if rest and " " in first:
        first, _, begun = first.rpartition(" ")
        rest = begun + rest
    yield Text(f"  └ {first}", color)
    if rest:
        yield Text(f"    {rest}", color)


def _key(status: QueryStatus, reading: Reading) -> tuple[str, str, str]:
    return status.query, reading.metric, reading.attributes

"""List of all targets, the most urgent first, with a selected one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from poller.cli.watch_view.board import BoardColumn, head, headings, page, row, screen, span
from poller.cli.watch_view.source import PollerStatus
from poller.model.printable import one_line
from poller.model.text import counted
from poller.polling.target_status import TargetStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_UP = {True: ("up", "green"), False: ("down", "red"), None: ("-", "dim")}
_COUNTS = {"ok": "green", "failed": "red", "skipped": "yellow", "stale": "magenta"}
_WIDE = 110
"""Minimum width of the terminal, in cells, for the column with the server."""
_KEYS = "↑ ↓ Enter opens, s sorts, q quits"


def columns(width: int) -> dict[str, BoardColumn]:
    """Return the columns that fill `width` cells; the last text column gets the remaining width."""
    counts = {name: BoardColumn(name.upper(), max(5, len(name)), right=True) for name in _COUNTS}
    layout = {
        "target": BoardColumn("TARGET", 32),
        "up": BoardColumn("UP", 4),
        **counts,
        "age": BoardColumn("AGE", 4, right=True),
        "lag": BoardColumn("LAG", 4, right=True),
        **({"server": BoardColumn("SERVER", 0)} if width >= _WIDE else {}),
    }
    rest = width - sum(column.width for column in layout.values()) - (len(layout) - 1)
    if "server" in layout:
        layout["server"] = BoardColumn("SERVER", max(0, rest))
    else:
        layout["target"] = BoardColumn("TARGET", max(8, 32 + rest))
    return layout


class TargetList:
    """The selected target, the order and the scroll position."""

    def __init__(self) -> None:
        self.selected = ""
        self._by_name = False
        self._names: list[str] = []
        self._first = 0
        self._page = 1

    def press(self, key: str) -> None:
        """Select another target by a key, or change the order."""
        step = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page}.get(key, 0)
        if key == "s":
            self._by_name = not self._by_name
        elif self._names:
            here = self._names.index(self.selected) + step if self.selected in self._names else 0
            here = {"home": 0, "end": len(self._names) - 1}.get(key, here)
            self.selected = self._names[min(max(0, here), len(self._names) - 1)]

    def draw(self, poller: PollerStatus, now: float, width: int, height: int) -> RenderableType:
        """Return the whole screen; `now` is in seconds since 1970."""
        from rich.text import Text

        layout, targets, first = columns(width), self._sorted(poller.targets or ()), head(poller)
        self._names = [target.name for target in targets]
        if self.selected not in self._names:
            self.selected = next(iter(self._names), "")
        here = self._names.index(self.selected) if self._names else 0
        room = max(1, height - len(first) - 4)
        self._page = max(1, room - 1)
        self._first = max(0, min(self._first, here, len(targets) - room))
        self._first = max(self._first, here - room + 1)
        visible = targets[self._first : self._first + room]
        lines = [_line(target, layout, now) for target in visible]
        if lines:
            lines[here - self._first].stylize("reverse")
        else:
            lines = [Text("the poller has not written the status of its targets yet", "dim")]
        whole = [*first, Text(""), headings(layout), *lines, Text(""), self._foot(targets, len(visible))]
        return screen(whole, width)

    def table(self, poller: PollerStatus, now: float, width: int) -> RenderableType:
        """Return all lines at full height, for an output that is not a screen."""
        layout = columns(width)
        lines = [_line(target, layout, now) for target in self._sorted(poller.targets or ())]
        return page(poller, layout, lines)

    def _sorted(self, targets: Sequence[TargetStatus]) -> list[TargetStatus]:
        return sorted(targets, key=lambda target: (0 if self._by_name else target.rank, target.name))

    def _foot(self, targets: Sequence[TargetStatus], visible: int) -> Text:
        from rich.text import Text

        up = Counter(target.up for target in targets)
        place = f"{self._first + 1}-{self._first + visible} of " if visible < len(targets) else ""
        counts = f"{place}{counted(len(targets), 'target')}: {up[True]} up, {up[False]} down"
        return Text(f"{counts}   {_KEYS}", "dim")


def _line(target: TargetStatus, layout: dict[str, BoardColumn], now: float) -> Text:
    from rich.text import Text

    reached, color = _UP[target.up]
    # A query that its estimate answered has values.
    counts = {**target.states, "ok": target.states.get("ok", 0) + target.states.get("estimated", 0)}
    cells = {
        "target": Text(one_line(target.name), "bold"),
        "up": Text(reached, color),
        "age": Text("-" if target.last_success is None else span(now - target.last_success)),
        "lag": Text("-" if target.lag is None else span(target.lag)),
        "server": Text(one_line(target.server)),
    }
    for state, style in _COUNTS.items():
        count = counts.get(state, 0)
        cells[state] = Text(str(count), style if count else "dim")
    return row(cells, layout)

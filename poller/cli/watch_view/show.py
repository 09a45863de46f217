"""Display of a poller's state: live on a terminal, once for any other output."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from poller.cli.watch_view.board import Board
from poller.cli.watch_view.source import PollerStatus, ReadStatus
from poller.cli.watch_view.target_list import TargetList

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDTH = 132
"""Width, in cells, of an output that is not a terminal."""


class Screen:
    """The queries of the only database, or a list of targets of which one can be opened."""

    def __init__(self, target: str = "") -> None:
        """Begin with the queries of `target`; empty: with the list, if there is one."""
        self._list = TargetList()
        self._list.selected = target
        self._opened = target
        self._boards: dict[str, Board] = {}
        """The histories of the targets that were opened; empty name: of the only database."""
        self._several = False

    def press(self, key: str) -> None:
        """Open a target, go back, or pass the key to the view."""
        if not self._several:
            self._board("").press(key)
        elif not self._opened:
            if key in ("enter", "right"):
                self._opened = self._list.selected
            else:
                self._list.press(key)
        elif key in ("escape", "left"):
            self._opened = ""
        else:
            self._board(self._opened).press(key)

    def draw(self, poller: PollerStatus, now: float, width: int, height: int) -> RenderableType:
        """Return the whole screen; `now` is in seconds since 1970."""
        name, status = self._of_view(poller)
        if status is None:
            return self._list.draw(poller, now, width, height)
        return self._board(name).draw(status, now, width, height)

    def table(self, poller: PollerStatus, now: float, width: int) -> RenderableType:
        """Return all lines at full height, for an output that is not a screen."""
        name, status = self._of_view(poller)
        if status is None:
            return self._list.table(poller, now, width)
        return self._board(name).table(status, now, width)

    def _of_view(self, poller: PollerStatus) -> tuple[str, PollerStatus | None]:
        """Return the name and the status of the view's queries; None for the list of targets."""
        self._several = poller.targets is not None
        if poller.targets is None:
            self._board("").take(poller)
            return "", poller
        opened = None
        for target in poller.targets:
            if target.name in self._boards or target.name == self._opened:
                status = poller.of(target)
                self._board(target.name).take(status)
                opened = status if target.name == self._opened else opened
        if opened is None:
            self._opened = ""  # the target was removed
        return self._opened, opened

    def _board(self, name: str) -> Board:
        return self._boards.setdefault(name, Board(of_target=bool(name)))


def show_live(console: Console, read_status: ReadStatus, target: str = "") -> bool:
    """Draw until `q`, SIGINT or SIGTERM; return whether the poller was alive at the end."""
    from poller.terminal.live import keep_drawn

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    screen = Screen(target)
    good = False

    def draw() -> RenderableType:
        nonlocal good
        poller = read_status()
        good = poller.good
        return screen.draw(poller, time.time(), console.width, console.height)

    keep_drawn(console, draw, ended.is_set, screen.press)
    return good


def show_once(console: Console, read_status: ReadStatus, target: str = "") -> bool:
    """Print the state of all targets, or of all queries, once; return whether the poller is alive."""
    poller = read_status()
    width = console.width if console.is_terminal else max(console.width, _WIDTH)
    console.print(Screen(target).table(poller, time.time(), width), soft_wrap=True)
    return poller.good

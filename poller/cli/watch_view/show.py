"""Display of a poller's state: live on a terminal, once for any other output."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from poller.cli.watch_view.board import Board
from poller.cli.watch_view.source import ReadStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDTH = 132
"""Width, in cells, of an output that is not a terminal."""


def show_live(console: Console, read_status: ReadStatus) -> bool:
    """Draw until `q`, SIGINT or SIGTERM; return whether the poller was alive at the end."""
    from poller.terminal.live import keep_drawn

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    board = Board()
    good = False

    def draw() -> RenderableType:
        nonlocal good
        poller = read_status()
        good = poller.good
        board.take(poller)
        return board.draw(poller, time.time(), console.width, console.height)

    keep_drawn(console, draw, ended.is_set, board.press)
    return good


def show_once(console: Console, read_status: ReadStatus) -> bool:
    """Print the state of all queries once; return whether the poller is alive."""
    poller = read_status()
    board = Board()
    board.take(poller)
    width = console.width if console.is_terminal else max(console.width, _WIDTH)
    console.print(board.table(poller, time.time(), width), soft_wrap=True)
    return poller.good

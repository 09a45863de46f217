"""Live screen that is redrawn until a key is pressed."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


_NAMES = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up",
    "\x1b[B": "down", "\x1bOB": "down", "j": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down", " ": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "g": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end", "G": "end",
    "\x1b[C": "right", "\x1bOC": "right", "l": "right", "\n": "enter", "\r": "enter",
    "\x1b[D": "left", "\x1bOD": "left", "h": "left", "\x1b": "escape",
    "q": "quit", "Q": "quit",
}  # fmt: skip

_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO.|.", re.DOTALL)


class Keys:
    """A context in which keys are read one by one and not shown; Ctrl-C still sends its signal.

    If standard input is no terminal, there are no keys and `wait` only waits.
    """

    def __init__(self) -> None:
        """Prepare; the terminal is not changed yet."""
        self._terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._typed: list[str] = []

    def __enter__(self) -> Self:
        if self._terminal is not None:
            self._before = termios.tcgetattr(self._terminal)
            tty.setcbreak(self._terminal, termios.TCSANOW)
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal is None or self._before is None:
            return
        with contextlib.suppress(termios.error):  # a terminal that is gone needs no restoring
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str | None:
        """Return the next key: up, down, left, right, page up, page down, home, end, enter, escape, quit, or
        its character.

        Returns None if no key is pressed within `seconds`, and "quit" when the terminal disappears.
        """
        if not self._typed and not self._read(seconds):
            return None
        if self._terminal is None:
            return "quit"
        key = self._typed.pop(0)
        return _NAMES.get(key, key)

    def _read(self, seconds: float) -> bool:
        """Wait for keys; return whether any was pressed or the terminal is gone."""
        if self._terminal is None:
            time.sleep(seconds)
            return False
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return False
        try:
            text = os.read(self._terminal, 256).decode(errors="replace")
        except OSError:
            text = ""
        if not text:
            self._terminal = None
        self._typed += _KEY.findall(text)
        return True


_CHECK_SECONDS = 0.25
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
"""DECAWM: a line that is too long would scroll the screen; terminals differ in the width of joined emoji."""


@contextmanager
def _unwrapped(console: Console) -> Iterator[None]:
    console.file.write(_NO_WRAP)
    try:
        yield
    finally:
        console.file.write(_WRAP)


def keep_drawn(
    console: Console,
    draw: Callable[[], RenderableType],
    over: Callable[[], bool],
    on_key: Callable[[str], None] = lambda _: None,
) -> None:
    """Draw a full screen every quarter of a second until `over` returns true or `q` is pressed.

    `on_key` is called with every other key. The terminal's screen, cursor and keyboard are restored at the
    end, also after an error.
    """
    from rich.live import Live

    with (
        Keys() as keys,
        Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live,
        _unwrapped(console),
    ):
        while not over():
            live.update(draw(), refresh=True)
            key = keys.wait(_CHECK_SECONDS)
            if key == "quit":
                return
            if key is not None:
                on_key(key)

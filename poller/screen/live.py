"""Keep a screen drawn until somebody has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poller.screen.keys import Keys

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LOOK_SECONDS = 0.25
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
    """Draw a whole screen four times a second until `over`, or until `q` is pressed; other keys are told.

    The terminal's own screen, cursor and keyboard are as they were afterwards, whatever is raised.
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
            key = keys.wait(_LOOK_SECONDS)
            if key == "quit":
                return
            if key is not None:
                on_key(key)

"""Keep a screen drawn until somebody has seen enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from poller.screen.keys import Keys

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LOOK_SECONDS = 0.25


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
    ):
        while not over():
            live.update(draw(), refresh=True)
            key = keys.wait(_LOOK_SECONDS)
            if key == "quit":
                return
            if key is not None:
                on_key(key)

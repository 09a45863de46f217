"""Perform the demo before a terminal, or before whoever reads lines, until it is over."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from poller.demo.show import DemoError, Show
from poller.endpoint import Endpoint


def perform(endpoint: Endpoint | None, interval: str, seconds: float | None, ended: threading.Event) -> int:
    """Run the demo until `ended` is set or `seconds` are over; returns the exit code.

    On a terminal the board is drawn live; anywhere else the newest values are printed every two seconds.
    0: values arrived; 1: none did, or something ended that was to go on.
    """
    from poller.console import open_console

    console = open_console()
    show = Show(endpoint, interval, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201 - progress
    try:
        show.start()
        deadline = time.monotonic() + seconds if seconds is not None else None
        if console.is_terminal:
            _live(console, show, deadline, ended)
        else:
            _print(show, deadline, ended)
        failure = show.failed()
    finally:
        show.stop()
    if console.is_terminal:
        console.print(show.draw(console.width, console.height))
    print("stopped; every process and file of the demo is gone", file=sys.stderr)  # noqa: T201 - progress
    if failure:
        raise DemoError(failure)
    return 0 if show.board.points or endpoint else 1


def _live(console: Any, show: Show, deadline: float | None, ended: threading.Event) -> None:
    from poller.screen.live import keep_drawn

    keep_drawn(
        console, lambda: show.draw(console.width, console.height), lambda: _over(show, deadline, ended)
    )


def _print(show: Show, deadline: float | None, ended: threading.Event) -> None:
    while not _over(show, deadline, ended):
        ended.wait(2.0)
        for line in show.lines():
            print(f"received {line}", flush=True)  # noqa: T201 - standard output is the product


def _over(show: Show, deadline: float | None, ended: threading.Event) -> bool:
    late = deadline is not None and time.monotonic() > deadline
    return late or ended.is_set() or show.failed() is not None

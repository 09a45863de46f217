"""Turn the first SIGTERM or SIGINT into a word to stop, and the second into an exit at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Set by the first signal."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        """Take over SIGTERM and SIGINT for the rest of the process; call it in the main thread.

        `on_first` is called in the signal handler: it may set a flag or write to a pipe, no more.
        """
        self.number: int | None = None
        """The first signal's number."""
        self._on_first = on_first
        self._event = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def wait(self) -> None:
        """Return at the first signal."""
        self._event.wait()

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            # Not the default action: for process 1 of a container that would be none.
            os._exit(128 + number)
        self.number = number
        self._on_first()
        self._event.set()

"""Signal handlers: SIGHUP requests a reload, SIGTERM and SIGINT stop, a second one exits at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


def on_hangup(act: Callable[[], None]) -> None:
    """Have SIGHUP call `act` for the rest of the process; call it in the main thread.

    `act` runs in the signal handler, perhaps inside of itself: it must need no lock. `SimpleQueue.put` fits.
    """
    signal.signal(signal.SIGHUP, lambda *_: act())


class StopSignal:
    """Set by the first signal."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        """Take over SIGTERM and SIGINT for the rest of the process; call it in the main thread.

        `on_first` is called in the signal handler: it may set a flag or write to a pipe, no more.
        """
        self.number: int | None = None
        """The first signal's number."""
        self._on_first = on_first
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def wait(self) -> None:
        """Return at the first signal; call it in the main thread.

        It reads from the pipe that Python writes every signal to, the moment it comes: in a lock of Python's
        own, a signal that comes just before the thread falls asleep would not wake it, and one that comes
        while the lock is taken would wait for ever.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            while self.number is None:
                os.read(reading, 4096)
        finally:
            signal.set_wakeup_fd(before)
            os.close(reading)
            os.close(writing)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            # Not the default action: for process 1 of a container that would be none.
            os._exit(128 + number)
        self.number = number
        self._on_first()

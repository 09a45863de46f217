"""Signal handlers: SIGHUP requests a reload, SIGTERM and SIGINT stop, a second one exits at once."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType


def on_hangup(act: Callable[[], None]) -> None:
    """Call `act` at each SIGHUP for the rest of the process; must be called in the main thread.

    `act` runs in the signal handler and may interrupt itself, so it must need no lock (`SimpleQueue.put` is
    suitable).
    """
    signal.signal(signal.SIGHUP, lambda *_: act())


class StopSignal:
    """A handler of SIGTERM and SIGINT that records the first signal; a second one ends the process."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        """Handle SIGTERM and SIGINT for the rest of the process; must be called in the main thread.

        `on_first` is called in the signal handler, so it may only set a flag or write to a pipe.
        """
        self.number: int | None = None
        """Number of the first signal; None before it."""
        self._on_first = on_first
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def is_requested(self) -> bool:
        """Return whether a signal has arrived."""
        return self.number is not None

    def wait(self, seconds: float | None = None) -> None:
        """Return at the first signal, or after `seconds`; must be called in the main thread.

        The wait reads from the pipe to which Python writes every signal. In a wait for a lock, a signal that
        arrives just before the thread sleeps would not wake it, and a signal that arrives while the lock is
        held would wait forever.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            deadline = None if seconds is None else time.monotonic() + seconds
            while self.number is None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not select.select([reading], [], [], left)[0]:
                    return
                os.read(reading, 4096)
        finally:
            signal.set_wakeup_fd(before)
            os.close(reading)
            os.close(writing)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            # The default action would not end process 1 of a container.
            os._exit(128 + number)
        self.number = number
        self._on_first()

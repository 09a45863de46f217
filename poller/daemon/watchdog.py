"""Watchdog thread that checks the poller's loops every few seconds and reports to its subscribers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

logger = logging.getLogger(__name__)

BEAT_SECONDS = 30.0
"""A third of the age above which `poller health` rejects a heartbeat."""
CHANGE_SECONDS = 5.0
"""Maximum delay in seconds until a beat reports the changes of a tick."""

OnBeat = Callable[[str | None], None]
"""Function that is called at every beat with the reason why the poller counts as hung, or None."""


class HealthCheck(Protocol):
    """Owner of a loop whose progress the watchdog checks: the scheduler and the exporter."""

    def stuck(self, now: float, /) -> str | None:
        """Return why the loop counts as hung at `now` (monotonic seconds); None if it does not."""


class Watchdog:
    """A thread that beats for as long as the process lives, independently of its other threads.

    A check that hangs stops the beats, so probes notice it as well.
    """

    def __init__(
        self,
        checks: Sequence[HealthCheck],
        on_beat: Sequence[OnBeat],
        on_end: Callable[[], None] = lambda: None,
        *,
        every: float = BEAT_SECONDS,
    ) -> None:
        """Prepare; `on_end` is called after the last beat, by `stop`; `every` is in seconds."""
        self._checks = tuple(checks)
        self._on_beat = tuple(on_beat)
        self._on_end = on_end
        self._every = every
        self._stopping = False
        self._due = 0.0
        self._wake = threading.Event()
        self._stuck: str | None = None
        self._thread = threading.Thread(target=self._go, name="watchdog", daemon=True)

    def start(self) -> None:
        """Beat now, and then every few seconds."""
        self._thread.start()

    def soon(self, within: float = 0.0) -> None:
        """Beat within `within` seconds on the watchdog's own thread, because something changed."""
        self._due = min(self._due, time.monotonic() + within)
        self._wake.set()

    def stop(self) -> None:
        """Stop the beats; wait at most one second for a beat in progress."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=1.0)
        self._on_end()

    def _go(self) -> None:
        while not self._stopping:
            self._due = time.monotonic() + self._every
            try:
                self._beat()
            except Exception:  # a defect must not end the thread
                logger.exception("a heartbeat failed")
            self._rest()

    def _rest(self) -> None:
        while not self._stopping and (left := self._due - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()

    def _beat(self) -> None:
        now = time.monotonic()
        stuck = next((why for check in self._checks if (why := check.stuck(now))), None)
        if stuck and not self._stuck:
            logger.error("the poller hangs: %s", stuck)
        elif self._stuck and not stuck:
            logger.info("the poller works again")
        self._stuck = stuck
        for call in self._on_beat:
            call(stuck)

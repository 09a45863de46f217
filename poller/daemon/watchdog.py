"""Watchdog thread that checks the poller's loops every few seconds and reports to its subscribers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

BEAT_SECONDS = 20.0
"""A third of the age from which `poller health` calls a heartbeat too old."""
NEWS_SECONDS = 5.0
"""At most, until a beat reports what a tick changed."""

Check = Callable[[float], str | None]
"""Says why a loop is taken for hung at a time in monotonic seconds; None while it goes on."""
OnBeat = Callable[[str | None], None]
"""Hears at every beat why the poller is taken for hung; None while it is well."""


class Pulse:
    """A thread that beats for as long as the process lives, whatever its other threads do.

    What hangs in a check stops the pulse, and so shows as well.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        on_beat: Sequence[OnBeat],
        on_end: Callable[[], None] = lambda: None,
        *,
        every: float = BEAT_SECONDS,
    ) -> None:
        """Prepare; `on_end` is called behind the last beat of one that is stopped; `every` is in seconds."""
        self._checks = tuple(checks)
        self._on_beat = tuple(on_beat)
        self._on_end = on_end
        self._every = every
        self._stopping = False
        self._due = 0.0
        self._wake = threading.Event()
        self._stuck: str | None = None
        self._thread = threading.Thread(target=self._go, name="pulse", daemon=True)

    def start(self) -> None:
        """Beat at once, and from then on every few seconds."""
        self._thread.start()

    def soon(self, within: float = 0.0) -> None:
        """Beat within so many seconds, as there is news, on the pulse's own thread."""
        self._due = min(self._due, time.monotonic() + within)
        self._wake.set()

    def stop(self) -> None:
        """Beat no more; a beat under way is waited for, a little."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=1.0)
        self._on_end()

    def _go(self) -> None:
        while not self._stopping:
            self._due = time.monotonic() + self._every
            try:
                self._beat()
            except Exception:  # a defect of ours must not end the pulse
                logger.exception("a heartbeat failed")
            self._rest()

    def _rest(self) -> None:
        while not self._stopping and (left := self._due - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()

    def _beat(self) -> None:
        now = time.monotonic()
        stuck = next((why for check in self._checks if (why := check(now))), None)
        if stuck and not self._stuck:
            logger.error("the poller hangs: %s", stuck)
        elif self._stuck and not stuck:
            logger.info("the poller goes on")
        self._stuck = stuck
        for tell in self._on_beat:
            tell(stuck)

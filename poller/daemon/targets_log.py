"""Log records about many targets together: their servers and their skipped ticks."""

from __future__ import annotations

import logging
import math
import time

from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.text import counted

logger = logging.getLogger(__name__)

SUMMARY_SECONDS = 60.0
"""Seconds between two records about skipped ticks."""


class TargetsLog:
    """One record for a server, however many targets it has, and one a minute for skipped ticks."""

    def __init__(self) -> None:
        self._skipped = 0
        self._logged = -math.inf

    def unavailable(self, server: str, error: PollError, waiting: int) -> None:
        """Log the begin of a server's quarantine, in which other targets wait."""
        extra: dict[str, object] = {"error.type": error.kind, "targets_waiting": waiting}
        extra |= {"hint": error.hint} if error.hint else {}
        logger.warning("server %s is unavailable, it will be retried: %s", server, error.message, extra=extra)

    def available(self, server: str, lasted: float) -> None:
        """Log the end of a server's quarantine, which has `lasted` so many seconds."""
        logger.info("server %s is available again after %s", server, format_duration(round(lasted)))

    def skipped(self, tick: str) -> None:
        """Count a skipped tick, and log all since the last record."""
        self._skipped += 1
        now = time.monotonic()
        if now - self._logged >= SUMMARY_SECONDS:
            text = "%s skipped, because the previous one had not ended; the newest: %s"
            logger.warning(text, counted(self._skipped, "tick"), tick)
            self._skipped, self._logged = 0, now

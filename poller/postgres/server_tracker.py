"""Tracker of the polled server, which logs a change of server, role or timeline."""

from __future__ import annotations

import logging
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One server as it was when a tick reached it."""

    address: str
    """Host name, address or socket directory, as it was chosen from the connection string."""
    port: int
    standby: bool
    timeline: int | None
    """None where the server does not tell."""
    lag: float | None
    """Replay lag in seconds; None where it is not known."""
    data_age: float | None
    """How old, at most, the newest state of the primary is that was certainly shown; seconds."""
    why: str
    """The rule that decided the lag, in words."""
    at: float
    """Seconds on a monotonic clock."""
    database: str = ""

    @property
    def role(self) -> str:
        return "standby" if self.standby else "primary"

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"


class Whereabouts:
    """The last sighting, as long as it says something about now."""

    def __init__(self, max_age: float, *, announce_first: bool = True) -> None:
        """`max_age` is in seconds; without `announce_first` only a change is told in the log."""
        self.max_age = max_age
        self._announce_first = announce_first
        self._last: Sighting | None = None

    def note(self, sighting: Sighting) -> None:
        """Take over a sighting; a server, role or timeline other than before is one line in the log."""
        before, self._last = self._last, sighting
        extra: dict[str, object] = {
            "server.address": sighting.address,
            "server.port": sighting.port,
            "role": sighting.role,
        }
        if sighting.timeline is not None:
            extra["timeline"] = sighting.timeline
        if before is None:
            if self._announce_first:
                logger.info("polling the %s %s", sighting.role, sighting.place, extra=extra)
        elif sighting.place != before.place:
            logger.warning(
                "polling another server: the %s %s instead of %s",
                sighting.role,
                sighting.place,
                before.place,
                extra=extra,
            )
        elif sighting.standby != before.standby:
            logger.warning(
                "%s is a %s now, was a %s", sighting.place, sighting.role, before.role, extra=extra
            )
        elif None not in (sighting.timeline, before.timeline) and sighting.timeline != before.timeline:
            logger.warning("%s follows timeline %s now", sighting.place, sighting.timeline, extra=extra)

    def seen(self, now: float) -> Sighting | None:
        """The last sighting; None where none is young enough to be told at `now` (monotonic seconds)."""
        last = self._last
        return last if last is not None and now - last.at <= self.max_age else None

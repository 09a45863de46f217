"""Tracker of the polled server, which logs a change of server, role or timeline."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from poller.model.duration import format_duration
from poller.model.text import host_port

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """State of one server when a tick reached it."""

    address: str
    """Host name, address or socket directory, as chosen from the connection string."""
    port: int
    standby: bool
    timeline: int | None
    """None if the server does not report it."""
    lag: float | None
    """Replay lag in seconds; None if unknown."""
    data_age: float | None
    """Upper bound on the age of the primary's state that the values reflect, in seconds; None if unknown."""
    why: str
    """The rule that decided the lag, as text."""
    at: float
    """Seconds on a monotonic clock."""
    database: str = ""

    @property
    def role(self) -> str:
        return "standby" if self.standby else "primary"

    @property
    def place(self) -> str:
        return host_port(self.address, self.port)

    def __str__(self) -> str:
        if not self.standby:
            return f"{self.role} {self.place}"
        lag = "unknown lag" if self.lag is None else f"{format_duration(round(self.lag, 1))} behind"
        return f"{self.role} {self.place}, {lag}"


class ServerTracker:
    """State of the last server that a tick reached, until it is too old."""

    def __init__(self, max_age: float, *, announce_first: bool = True) -> None:
        """`max_age` is in seconds; without `announce_first`, only changes are logged."""
        self.max_age = max_age
        self._announce_first = announce_first
        self._last: ServerInfo | None = None

    def record(self, server_info: ServerInfo) -> None:
        """Store the state of a server; log one line if the server, role or timeline has changed."""
        before, self._last = self._last, server_info
        extra: dict[str, object] = {
            "server.address": server_info.address,
            "server.port": server_info.port,
            "role": server_info.role,
        }
        if server_info.timeline is not None:
            extra["timeline"] = server_info.timeline
        if before is None:
            if self._announce_first:
                logger.info("polling the %s %s", server_info.role, server_info.place, extra=extra)
        elif server_info.place != before.place:
            logger.warning(
                "polling another server: the %s %s instead of %s",
                server_info.role,
                server_info.place,
                before.place,
                extra=extra,
            )
        elif server_info.standby != before.standby:
            logger.warning(
                "%s is a %s now, was a %s", server_info.place, server_info.role, before.role, extra=extra
            )
        elif None not in (server_info.timeline, before.timeline) and server_info.timeline != before.timeline:
            logger.warning("%s follows timeline %s now", server_info.place, server_info.timeline, extra=extra)

    def current(self, now: float) -> ServerInfo | None:
        """Return the last state; None if it is older than `max_age` at `now` (monotonic seconds)."""
        last = self._last
        return last if last is not None and now - last.at <= self.max_age else None

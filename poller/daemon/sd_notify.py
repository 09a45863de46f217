"""Service notifications to systemd or any other listener on NOTIFY_SOCKET.

The protocol is sd_notify(3): each notification is one datagram of `NAME=value` lines. Without the variable
nothing is sent. If the listener has gone, the poller continues without it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class SystemdNotifier:
    """A sender of notifications to the socket that the environment names; without a socket it is silent."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the address from `environ`: a path, or `@` and a name in the abstract namespace."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog(environ) if self._address else None
        """Seconds without a beat after which systemd kills the service as hung; None without a watchdog."""

    def ready(self, status: str) -> None:
        """Report that the start or a reload has ended; `systemctl status` shows `status`."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that a reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def beat(self, stuck: str | None) -> None:
        """Notify the watchdog; if the poller is `stuck`, report that reason instead."""
        if stuck is not None:
            self._send(f"STATUS=hangs: {stuck}")
        elif self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def every(self, longest: float) -> float:
        """Return the seconds between two beats: a third of the watchdog's time, at most `longest`."""
        return longest if self.watchdog_seconds is None else min(longest, self.watchdog_seconds / 3)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        # A notification must never block the poller, so it is lost if the listener does not read.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), address)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return WATCHDOG_USEC in seconds if it applies to this process (WATCHDOG_PID), else None."""
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "")) / 1e6
        addressed = int(environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return seconds if addressed and seconds > 0 else None

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


class Notifier:
    """Sends what happens to the socket that the environment names; does nothing where it names none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take the address from `environ`: a path, or behind an `@` a name in the abstract namespace."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog(environ) if self._address else None
        """Time without a beat after which the service is taken for hung and killed; None: nobody looks."""

    def ready(self, status: str) -> None:
        """The start is over; `status` is what `systemctl status` shows."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def beat(self, stuck: str | None) -> None:
        """Keep the watchdog quiet, unless the poller is `stuck` for this reason."""
        if stuck is not None:
            self._send(f"STATUS=hangs: {stuck}")
        elif self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def every(self, longest: float) -> float:
        """Seconds between two beats, `longest` at most: a third of the watchdog's time."""
        return longest if self.watchdog_seconds is None else min(longest, self.watchdog_seconds / 3)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        # It may never hold up the poller: a listener that does not read is passed over.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), address)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC in seconds, where it is meant for this process (WATCHDOG_PID)."""
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "")) / 1e6
        meant = int(environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return seconds if meant and seconds > 0 else None

"""Free TCP ports on 127.0.0.1 outside the range of outgoing connections."""

from __future__ import annotations

import contextlib
import random
import socket

LOOPBACK = "127.0.0.1"

_RANGE = range(15_000, 32_768)
"""Below what Linux and macOS hand to outgoing connections (32768 and 49152 upwards).

A port of that range may be taken by any client while our server is down for a restart; worse, a client that
retries a closed port in it can be given that very port as its own and so connect to itself.
"""


def free_ports(count: int) -> list[int]:
    """Return `count` different ports on which nothing listens now; raises OSError where none is found."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(_RANGE, 500):
            listener = held.enter_context(socket.socket())
            # As every server here does: a port whose last connections are in TIME_WAIT is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(f"found {len(ports)} of {count} free ports between {_RANGE.start} and {_RANGE.stop}")

"""Free TCP ports on 127.0.0.1 outside the range of outgoing connections."""

from __future__ import annotations

import contextlib
import random
import socket

LOOPBACK = "127.0.0.1"

_RANGE = range(15_000, 32_768)
"""Ports below the ranges that Linux and macOS use for outgoing connections (32768 and 49152 upwards).

Any client can take a port of those ranges while the receiver is down for a restart. A client that retries a
closed port there can even get the same port as its own and connect to itself.
"""
_chosen = {"from": _RANGE}


def take_share(number: int, count: int) -> None:
    """Let this process choose from one of `count` parts of the range; `number` counts from 0.

    Otherwise parallel processes could take the port of each other's receiver while it restarts.
    """
    size = len(_RANGE) // count
    _chosen["from"] = _RANGE[number * size : (number + 1) * size]


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports; raises OSError if not enough of them are found."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in random.sample(_chosen["from"], 500):
            listener = stack.enter_context(socket.socket())
            # Like all servers here: a port with connections in TIME_WAIT counts as free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    first, *_, last = _chosen["from"]
    raise OSError(f"found {len(ports)} of {count} free ports between {first} and {last}")

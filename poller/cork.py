"""Hold back what is written to a connection until a burst is complete."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CORK = getattr(socket, "TCP_CORK", None)


@contextmanager
def corked(descriptor: int) -> Iterator[None]:
    """Within the block, what is written to the socket `descriptor` leaves in full segments (Linux, tcp(7)).

    libpq flushes at every Sync (PostgreSQL manual, "PQpipelineSync") and has TCP_NODELAY on: a burst of a
    thousand statements would be a thousand packets. Elsewhere, and on a Unix socket, nothing is held back.
    """
    _set(descriptor, 1)
    try:
        yield
    finally:
        _set(descriptor, 0)


def _set(descriptor: int, value: int) -> None:
    if _CORK is None or descriptor < 0:
        return
    with suppress(OSError):  # it is gone: whoever writes next will hear of it
        connection = socket.socket(fileno=descriptor)
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, _CORK, value)
        finally:
            connection.detach()

"""Have whoever stops us stop the statement that is running as well."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from poller.errors import PollerError, PollError
from poller.waker import Waker

_CANCEL_SECONDS = 2.0
_CANCEL_AGAIN_SECONDS = 0.05


@contextmanager
def stoppable(connection: psycopg.Connection, waker: Waker) -> Iterator[None]:
    """Cancel what `connection` runs in here once the waker is raised; raises PollError `cancelled` then.

    Rows are made by COPY too, which has no place in a pipeline, and psycopg waits for nothing but the server.
    """
    over, end = os.pipe()
    watcher = threading.Thread(target=_watch, args=(connection, waker, over), name="stopping")
    watcher.start()
    try:
        yield
    except (psycopg.Error, PollerError):
        if not waker.raised:
            raise
    finally:
        os.close(end)
        watcher.join()
        os.close(over)
    if waker.raised:
        raise PollError("cancelled", "told to stop")


def _watch(connection: psycopg.Connection, waker: Waker, over: int) -> None:
    ready, _, _ = select.select([waker.fileno(), over], [], [])
    while over not in ready:
        # A cancel ends one statement only, and one that comes between two ends none.
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_SECONDS)
        ready, _, _ = select.select([over], [], [], _CANCEL_AGAIN_SECONDS)

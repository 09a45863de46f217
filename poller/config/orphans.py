"""Reaper of orphaned processes, for a poller that is process 1 of a container."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class Orphans:
    """Children that this process never started, and so never waits for."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._own = 0

    @contextlib.contextmanager
    def own_child(self) -> Iterator[None]:
        """Around the life of a child of our own: only its owner may take its exit status."""
        with self._turn:
            self._own += 1
        try:
            yield
        finally:
            with self._turn:
                self._own -= 1

    def reap(self) -> None:
        """Remove the orphans that have ended; does nothing while a child of our own runs."""
        with self._turn, contextlib.suppress(ChildProcessError):
            while not self._own and os.waitpid(-1, os.WNOHANG)[0]:
                pass


ORPHANS = Orphans()
"""Of this process: it has one set of children."""

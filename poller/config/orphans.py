"""Reaper of orphaned processes, for a poller that is process 1 of a container."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class Orphans:
    """Children that this process inherited, and so never waits for."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._own = 0

    @contextlib.contextmanager
    def own_child(self) -> Iterator[None]:
        """Context of a child that this process started: only its owner may read its exit status."""
        with self._turn:
            self._own += 1
        try:
            yield
        finally:
            with self._turn:
                self._own -= 1

    def reap(self) -> None:
        """Remove the orphans that have ended; does nothing while this process has its own child."""
        with self._turn, contextlib.suppress(ChildProcessError):
            while not self._own and os.waitpid(-1, os.WNOHANG)[0]:
                pass


ORPHANS = Orphans()
"""The orphans of this process."""

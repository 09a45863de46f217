"""Cancel token that lets another thread or a signal handler interrupt a wait for the server."""

from __future__ import annotations

import os
import select
import weakref


class CancelToken:
    """Interrupts the statements of a pipeline from another thread or from a signal handler."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        self._write: int | None = write
        self.raised = False
        self._close = weakref.finalize(self, _close, self._read, write)
        self._close.atexit = False

    def cancel(self) -> None:
        """Interrupt the statements that are running and all later ones."""
        self.raised = True
        if self._write is not None:
            os.write(self._write, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait for `seconds`, or until the token is cancelled; return whether it is cancelled."""
        if not self.raised:
            select.select([self._read], [], [], seconds)
        return self.raised

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        # Forget the descriptor first: its number may be reused, and a signal may still arrive.
        self._write = None
        self._close()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

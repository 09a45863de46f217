"""Receiver of `conform` that listens for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from poller.receiver.receiver import Received, Receiver
from poller.receiver.signals import Request

_LAST_ANSWER = 0.2
"""Seconds in which the sender of the last request gets its answer, before every connection is cut."""


class Listening:
    """Both protocols of OTLP, until a time is over, enough requests came, or somebody says so."""

    def __init__(
        self, take: Callable[[Request], int], *, host: str, grpc_port: int, http_port: int, enough: int | None
    ) -> None:
        """Listen at once; raises OSError where a port is taken.

        `take` is given every request and returns how many there were; from `enough` on the wait is over.
        """
        self._take = take
        self._enough = enough
        self._ended = threading.Event()
        self.receiver = Receiver(
            grpc_port=grpc_port, http_port=http_port, host=host, keep=1, on_request=self._received
        )

    def wait(self, seconds: float | None) -> None:
        """Return when it is over, and no longer listen; None waits for requests or for `end` alone."""
        with self.receiver:
            self._ended.wait(seconds)
            time.sleep(_LAST_ANSWER)

    def end(self) -> None:
        """Let `wait` return; may be called from a signal handler."""
        self._ended.set()

    def _received(self, received: Received) -> None:
        count = self._take(received.request)
        if self._enough is not None and count >= self._enough:
            self._ended.set()

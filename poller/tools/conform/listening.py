"""OTLP receiver of `conform`, which listens for a limited time or number of requests."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from poller.receiver.receiver import Received, Receiver
from poller.receiver.signals import Request

_LAST_ANSWER = 0.2
"""Seconds before the receiver closes its connections, so that the last request gets its answer."""


class LimitedReceiver:
    """Receiver of both OTLP protocols until a timeout, a number of requests or a call of `end`."""

    def __init__(
        self, take: Callable[[Request], int], *, host: str, grpc_port: int, http_port: int, enough: int | None
    ) -> None:
        """Start to listen; raises OSError if a port is in use.

        `take` handles each request and returns the number of requests so far; `enough` of them end the wait.
        """
        self._take = take
        self._enough = enough
        self._ended = threading.Event()
        self.receiver = Receiver(
            grpc_port=grpc_port, http_port=http_port, host=host, keep=1, on_request=self._received
        )

    def wait(self, seconds: float | None) -> None:
        """Wait for the end and stop listening; with None, only requests or `end` end the wait."""
        with self.receiver:
            deadline = math.inf if seconds is None else time.monotonic() + seconds
            # A signal just before the thread sleeps would not wake it, so it looks again each second.
            while (left := deadline - time.monotonic()) > 0 and not self._ended.wait(min(left, 1.0)):
                pass
            time.sleep(_LAST_ANSWER)

    def end(self) -> None:
        """Make `wait` return; may be called from a signal handler."""
        self._ended.set()

    def _received(self, received: Received) -> None:
        count = self._take(received.request)
        if self._enough is not None and count >= self._enough:
            self._ended.set()

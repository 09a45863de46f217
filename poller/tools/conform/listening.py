"""OTLP receiver of `conform`, which listens for a limited time or number of requests."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from poller.receiver.receiver import Received, Receiver
from poller.receiver.signals import ExportRequest

_PAUSE = 0.2
"""Seconds between two looks at `stopped`."""
_LAST_ANSWER = 0.2
"""Seconds before the receiver closes its connections, so that the last request gets its answer."""


class LimitedReceiver:
    """Receiver of both OTLP protocols until a timeout, a number of requests or a call of `end`."""

    def __init__(
        self,
        take: Callable[[ExportRequest], int],
        *,
        host: str,
        grpc_port: int,
        http_port: int,
        enough: int | None,
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

    def wait(self, seconds: float | None, stopped: Callable[[], bool]) -> None:
        """Wait for `seconds`, for enough requests, or until `stopped`, then stop listening.

        None means no limit of time.
        """
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self.receiver:
            # The handler of a signal may neither take the lock of `_ended`, which the interrupted thread may
            # hold, nor does it always wake a thread that waits for a lock.
            while not stopped() and (left := deadline - time.monotonic()) > 0:
                if self._ended.wait(min(left, _PAUSE)):
                    break
            time.sleep(_LAST_ANSWER)

    def _received(self, received: Received) -> None:
        count = self._take(received.request)
        if self._enough is not None and count >= self._enough:
            self._ended.set()

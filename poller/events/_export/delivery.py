"""OTLP exporter wrapper that tracks whether the collector is reachable."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from poller.events._export.endpoint import Signal, Target
from poller.events._logging.records import message_of
from poller.events._privacy.patterns import text_of

logger = logging.getLogger(__name__)

_EXPORTERS = "opentelemetry.exporter"
_MOMENT = 0.25
_UNTIL_CUT = 5.0
"""Seconds."""
_abandoned: list[Any] = []
"""Exporters that are used no more, and kept: to end one may wait for threads that another process has."""


class Delivery:
    """An exporter of any signal, which says once that the collector is gone, and once that it is back.

    The exporters themselves write a line for each try, and none of their results reaches anybody (SDK 1.45).
    """

    def __init__(self, signal: Signal, target: Target, build: Callable[[], Any], results: Any) -> None:
        """Build the exporter; `results` is the enumeration of what its `export` returns."""
        self.signal = signal
        self._target = target
        self._build = build
        self._results = results
        self._reasons = _listen()
        self._ended = False
        self._failing_since: float | None = None
        self._open, self._sending = threading.Lock(), threading.Lock()
        self._held = False
        self._cuts = 0
        self.failures = 0
        """Batches that did not arrive."""
        self.lost = 0
        """Spans, data points or log records of these batches."""
        self.sending = 0
        """Those of the batch that is under way."""
        self.exporter: Any = build()

    def export(self, batch: Any, **kwargs: Any) -> Any:
        """Send one batch, whatever it takes; returns what the exporter returned."""
        self._reasons.clear()
        self.sending = size = _size(batch)
        try:
            result = self._export(batch, **kwargs)
        finally:
            self.sending = 0
        if result is not self._results.SUCCESS:
            self.failures += 1
            self.lost += size
        return result

    def _export(self, batch: Any, **kwargs: Any) -> Any:
        while not self._ended:
            with self._open:  # shut while the process forks
                self._sending.acquire()
            cuts = self._cuts
            try:
                result = self._send(batch, **kwargs)
            finally:
                self._sending.release()
            if result is self._results.SUCCESS or cuts == self._cuts:
                self._announce(lost=result is not self._results.SUCCESS)
                return result
            # It was cut short by a fork, which is no fault of the collector's.
        return self._results.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing waits here."""
        del timeout_millis
        return True

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """End the exporter, and with it a request in flight."""
        del args, kwargs
        if not self._ended:
            self._ended = True
            self._close()

    def before_fork(self) -> None:
        """Have no request under way, and let none begin: of gRPC in the midst of one a child would hang.

        A request in flight is given a moment to end; after that it is cut short, and sent again. Connections
        stay open: gRPC (1.85) survives a fork with open ones, but not one during the closing of the last.
        """
        self._open.acquire()
        self._held = self._sending.acquire(timeout=_MOMENT)
        if not self._held:
            self._cuts += 1
            self._close()
            self._held = self._sending.acquire(timeout=_UNTIL_CUT)
            self._abandon()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held:
            self._sending.release()
        self._open.release()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections to the parent, and send by new ones."""
        self._open, self._sending = threading.Lock(), threading.Lock()
        self._failing_since = None
        self._abandon()

    def _abandon(self) -> None:
        _abandoned.append(self.exporter)
        self.exporter = None

    def _send(self, batch: Any, **kwargs: Any) -> Any:
        try:
            if self.exporter is None:
                self.exporter = self._build()
            return self.exporter.export(batch, **kwargs)
        except Exception as error:  # noqa: BLE001 - a value that cannot be encoded raises anything
            self._reasons.add(f"{type(error).__name__}: {text_of(error)}")
            return self._results.FAILURE

    def _close(self) -> None:
        if self.exporter is not None:
            with contextlib.suppress(Exception):
                self.exporter.shutdown()

    def _announce(self, *, lost: bool) -> None:
        if self._ended:
            return  # it was cut short by us, which is no news of the collector
        where = {"endpoint": str(self._target)}
        if lost and self._failing_since is None:
            self._failing_since = time.monotonic()
            logger.warning("%s do not arrive: %s", self.signal, self._reasons.best(), extra=where)
        elif not lost and self._failing_since is not None:
            seconds = time.monotonic() - self._failing_since
            self._failing_since = None
            logger.info("%s arrive again after %.0f s", self.signal, seconds, extra=where)


def _size(batch: Any) -> int:
    """Spans or log records of a batch, or data points of metrics."""
    if not hasattr(batch, "resource_metrics"):
        return len(batch)
    scopes = [scope for resource in batch.resource_metrics for scope in resource.scope_metrics]
    return sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)


class _Reasons(logging.Handler):
    """Catches what the exporters log in this thread, instead of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._own = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self.add(message_of(record))

    def add(self, message: str) -> None:
        self._messages().append(message)

    def clear(self) -> None:
        self._messages().clear()

    def best(self) -> str:
        """The last message that says why; HTTP's very last one does not when retries were tried before."""
        messages = self._messages()
        telling = [message for message in messages if "due to timeout, max retries" not in message]
        return " ".join((telling or messages or ["no reason was given"])[-1].split())

    def _messages(self) -> list[str]:
        if not hasattr(self._own, "messages"):
            self._own.messages = []
        messages: list[str] = self._own.messages
        return messages


def _listen() -> _Reasons:
    """Catch what all exporters log; it is the same for every signal."""
    exporters = logging.getLogger(_EXPORTERS)
    for handler in exporters.handlers:
        if isinstance(handler, _Reasons):
            return handler
    reasons = _Reasons()
    exporters.handlers = [reasons]
    exporters.propagate = False
    exporters.setLevel(logging.WARNING)
    # Drops what was logged within 20 s before, so that a second outage would have no reason.
    logging.getLogger(f"{_EXPORTERS}.otlp.proto.grpc.exporter").filters.clear()
    return reasons

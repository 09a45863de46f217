"""OTLP exporter wrapper that tracks whether the collector is reachable."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from poller.events._logging.records import message_of
from poller.model.otlp_endpoint import Endpoint, Signal
from poller.model.printable import text_of
from poller.model.text import counted

logger = logging.getLogger(__name__)

UNITS: dict[Signal, str] = {"traces": "span", "metrics": "data point", "logs": "log record"}
"""One item of each signal."""
_EXPORTERS = "opentelemetry.exporter"
_MOMENT = 0.25
_UNTIL_CUT = 5.0
"""Maximum wait for a request that was cut short, in seconds."""
_abandoned: list[Any] = []
"""Unused exporters, which stay open: closing one may wait for threads that only another process has."""


class Delivery:
    """Wrapper of an exporter for any signal; logs an outage of the collector once, and its recovery once.

    The exporters themselves log every attempt, and no caller receives their results (SDK 1.45).
    """

    def __init__(self, signal: Signal, target: Endpoint, build: Callable[[], Any], results: Any) -> None:
        """Build the exporter; `results` is the result enumeration of its `export` method."""
        self.signal = signal
        self._target = target
        self._build = build
        self._results = results
        self._reasons = _shared_reasons()
        self._ended = False
        self._failing_since: float | None = None
        self._lost_before = 0
        self._open, self._sending = threading.Lock(), threading.Lock()
        self._acquired = False
        self._cuts = 0
        self.failures = 0
        """Number of batches that were not delivered."""
        self.lost = 0
        """Number of spans, data points or log records in these batches."""
        self.sending = 0
        """Number of spans, data points or log records in the batch that is being sent."""
        self.exporter: Any = build()

    def export(self, batch: Any, **kwargs: Any) -> Any:
        """Send one batch and return the exporter's result; never raises an exporter's error."""
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
            with self._open:  # closed while the process forks
                self._sending.acquire()
            cuts = self._cuts
            try:
                result = self._send(batch, **kwargs)
            finally:
                self._sending.release()
            if result is self._results.SUCCESS or cuts == self._cuts:
                self._log_change(lost=result is not self._results.SUCCESS)
                return result
            # A fork cut the request short, which is not a failure of the collector.
        return self._results.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Return True, because this class has no queue."""
        del timeout_millis
        return True

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Shut down the exporter and cancel a request in flight."""
        del args, kwargs
        if not self._ended:
            self._ended = True
            self._close()

    def before_fork(self) -> None:
        """Finish the current request and block new ones: a gRPC request in flight would hang the child.

        A request in flight gets `_MOMENT` seconds to finish; then it is cut short and sent again after the
        fork. Connections stay open: gRPC (1.85) survives a fork with open connections, but not during the
        closing of the last one.
        """
        self._open.acquire()
        self._acquired = self._sending.acquire(timeout=_MOMENT)
        if not self._acquired:
            self._cuts += 1
            self._close()
            self._acquired = self._sending.acquire(timeout=_UNTIL_CUT)
            self._abandon()

    def after_fork_in_parent(self) -> None:
        """Resume sending."""
        if self._acquired:
            self._sending.release()
        self._open.release()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections to the parent and use new ones."""
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
        except Exception as error:  # noqa: BLE001 - encoding an invalid value may raise anything
            self._reasons.add(f"{type(error).__name__}: {text_of(error)}")
            return self._results.FAILURE

    def _close(self) -> None:
        if self.exporter is not None:
            with contextlib.suppress(Exception):
                self.exporter.shutdown()

    def _log_change(self, *, lost: bool) -> None:
        if self._ended:
            return  # this process cut it short, which says nothing about the collector
        where = {"endpoint": str(self._target)}
        if lost and self._failing_since is None:
            self._failing_since, self._lost_before = time.monotonic(), self.lost
            logger.warning("%s are not delivered: %s", self.signal, self._reasons.best(), extra=where)
        elif not lost and self._failing_since is not None:
            seconds = time.monotonic() - self._failing_since
            self._failing_since = None
            # Metrics are not lost, because the next export has the totals.
            number = self.lost - self._lost_before
            lost_text = "" if self.signal == "metrics" else f"; lost: {counted(number, UNITS[self.signal])}"
            logger.info("%s are delivered again after %.0f s%s", self.signal, seconds, lost_text, extra=where)


def _size(batch: Any) -> int:
    """Return the number of spans or log records, or of data points of metrics."""
    if not hasattr(batch, "resource_metrics"):
        return len(batch)
    scopes = [scope for resource in batch.resource_metrics for scope in resource.scope_metrics]
    return sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)


class _Reasons(logging.Handler):
    """Captures the messages that the exporters log in this thread, instead of the log."""

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
        """Return the last message with a reason; the final HTTP message after retries has none."""
        messages = self._messages()
        informative = [message for message in messages if "due to timeout, max retries" not in message]
        return " ".join((informative or messages or ["unknown reason"])[-1].split())

    def _messages(self) -> list[str]:
        if not hasattr(self._own, "messages"):
            self._own.messages = []
        messages: list[str] = self._own.messages
        return messages


def _shared_reasons() -> _Reasons:
    """Return the handler that captures the messages of all exporters; all signals share it."""
    exporters = logging.getLogger(_EXPORTERS)
    for handler in exporters.handlers:
        if isinstance(handler, _Reasons):
            return handler
    reasons = _Reasons()
    exporters.handlers = [reasons]
    exporters.propagate = False
    exporters.setLevel(logging.WARNING)
    # The filter drops messages repeated within 20 s, so that a second outage would have no reason.
    logging.getLogger(f"{_EXPORTERS}.otlp.proto.grpc.exporter").filters.clear()
    return reasons

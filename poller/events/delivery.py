"""Hand batches to an OTLP exporter, and know whether they arrive."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from poller.events.target import Signal, Target

logger = logging.getLogger(__name__)

_EXPORTERS = "opentelemetry.exporter"
_abandoned: list[Any] = []
"""Exporters of the process that this one was forked from: to end one would wait for threads it had alone."""


class Delivery:
    """An exporter of any signal, which says once that the collector is gone, and once that it is back.

    The exporters themselves write a line for each try, and none of their results reaches anybody (SDK 1.45).
    """

    def __init__(self, signal: Signal, target: Target, build: Callable[[], Any], results: Any) -> None:
        """Build the exporter; `results` is the enumeration of what its `export` returns."""
        self._signal = signal
        self._target = target
        self._build = build
        self._results = results
        self._reasons = _listen()
        self._ended = False
        self._failing_since: float | None = None
        self.lost = False
        """Whether the last batch did not arrive."""
        self.exporter = build()

    def export(self, batch: Any, **kwargs: Any) -> Any:
        """Send one batch, whatever it takes; returns what the exporter returned."""
        if self._ended:
            return self._results.FAILURE
        self._reasons.clear()
        try:
            result = self.exporter.export(batch, **kwargs)
        except Exception as error:  # noqa: BLE001 - a value that cannot be encoded raises anything
            self._reasons.add(f"{type(error).__name__}: {error}")
            result = self._results.FAILURE
        self.lost = result is not self._results.SUCCESS
        self._announce()
        return result

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing waits here."""
        del timeout_millis
        return True

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """End the exporter, and with it a request in flight."""
        del args, kwargs
        if not self._ended:
            self._ended = True
            with contextlib.suppress(Exception):
                self.exporter.shutdown()

    def begin_anew(self) -> None:
        """In a forked child: build another exporter, and leave the parent's connections to the parent."""
        _abandoned.append(self.exporter)
        self.exporter = self._build()
        self._failing_since = None

    def _announce(self) -> None:
        if self._ended:
            return  # it was cut short by us, which is no news of the collector
        where = {"endpoint": str(self._target)}
        if self.lost and self._failing_since is None:
            self._failing_since = time.monotonic()
            logger.warning("%s do not arrive: %s", self._signal, self._reasons.best(), extra=where)
        elif not self.lost and self._failing_since is not None:
            seconds = time.monotonic() - self._failing_since
            self._failing_since = None
            logger.info("%s arrive again after %.0f s", self._signal, seconds, extra=where)


class _Reasons(logging.Handler):
    """Catches what the exporters log in this thread, instead of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._own = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.getMessage())

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

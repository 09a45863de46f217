"""Exporter of the poller's own spans or log records, with a queue in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from poller.model.otlp_endpoint import Endpoint, Signal
from poller.model.retry import RETRY, RetryConfig
from poller.model.text import counted
from poller.otlp.request import MAX_SIZE, split
from poller.otlp.retry_sender import RetrySender
from poller.otlp.sender import build_sender
from poller.otlp.sending_queue import SendingQueue
from poller.otlp.signals import format_of


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of a signal's queue in memory; above them the oldest request is dropped."""

    size: int = 4 * 2**20
    """Maximum size of all requests in bytes."""
    age: float = 600.0
    """Maximum age in seconds."""
    retry: RetryConfig = RETRY
    """Pauses between two attempts."""
    request_size: int = MAX_SIZE
    """Maximum size of one request in bytes."""


class SignalExport:
    """The queue of one signal and the thread that sends it; a slow collector delays no caller.

    The poller's health does not depend on it: `MetricExporter.stuck` watches only the export of metrics.
    """

    def __init__(
        self,
        signal: Signal,
        endpoint: Endpoint,
        timeout: float,
        *,
        requested: bool = True,
        limits: QueueLimits | None = None,
    ) -> None:
        """Prepare; `timeout` bounds one request, in seconds.

        Without `requested` a loss, or a collector without support for the signal, is logged at info level.
        Raises ConfigError if a standard OTEL_EXPORTER_OTLP_* variable cannot be used, or if the package for
        HTTP is missing.
        """
        self._limits = limits or QueueLimits()
        self._form = format_of(signal)
        self._loss_level = logging.WARNING if requested else logging.INFO
        sender = build_sender(endpoint, timeout, signal=signal)
        self._queue = SendingQueue(
            None,
            max_size=self._limits.size,
            max_age=self._limits.age,
            form=self._form,
            settings={},
            loss_level=self._loss_level,
        )
        self.delivery = RetrySender(
            self._form,
            self._queue,
            sender,
            str(endpoint),
            self._limits.retry,
            confirm=False,
            requested=requested,
        )

    def export(self, encode: Callable[[Sequence[Any]], Any], batch: Sequence[Any]) -> bool:
        """Queue a batch; `encode` makes a request message of it. Return whether all items were encoded.

        Items that OTLP cannot carry are dropped and counted; the others are queued.
        """
        lost, reason = 0, ""
        try:
            message = encode(batch)
        except Exception as error:  # noqa: BLE001 - the SDK's encoder raises anything
            reason = f"{type(error).__name__}: {error}"
            encodable = [item for item in batch if _is_encodable(encode, item)]
            lost = len(batch) - len(encodable)
            message = encode(encodable)
        self.delivery.enqueue(list(split(message, self._form, self._limits.request_size)))
        if lost:
            self.delivery.stats.count_lost("unencodable", lost)
            self._form.logger.warning(
                "%d of %d %s are lost: they cannot be encoded: %s", lost, len(batch), self._form.items, reason
            )
        return not lost

    def shutdown(self, flush: Callable[[], object], timeout: float) -> None:
        """Send the queue and end, within `timeout` seconds even if the collector hangs.

        `flush` exports the items that the SDK still buffers. A second call sends nothing more.
        """
        deadline = time.monotonic() + timeout
        flush()
        self.delivery.drain(deadline - time.monotonic())
        self.delivery.close()
        if left := self._queue.requests:
            message = "%s: %s not delivered and lost"
            self._form.logger.log(self._loss_level, message, self._form.export, counted(left, "request"))
        self._queue.close()


def _is_encodable(encode: Callable[[Sequence[Any]], Any], item: object) -> bool:
    try:
        encode([item])
    except Exception:  # noqa: BLE001 - the same
        return False
    return True

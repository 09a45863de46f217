"""Exporter of the poller's own spans or log records, with a queue in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from poller.config.endpoint import Endpoint, Signal
from poller.model.text import counted
from poller.otlp import sender as otlp
from poller.otlp.request import MAX_SIZE, split
from poller.otlp.retry_sender import Delivery
from poller.otlp.sending_queue import Spool
from poller.otlp.signals import form_of


@dataclass(frozen=True, slots=True)
class Limits:
    """What waits in memory for a collector that is away; beyond it the oldest request is dropped."""

    size: int = 4 * 2**20
    """Bytes of requests."""
    age: float = 600.0
    """Seconds."""
    pause: float = 60.0
    """Longest pause between two tries, in seconds."""
    request_size: int = MAX_SIZE
    """Bytes of one request."""


class SignalExport:
    """The queue of one signal and the thread that sends it; what a collector does delays no caller.

    The health of the poller does not depend on it: only metrics are watched, by `Push.stuck`.
    """

    def __init__(
        self,
        signal: Signal,
        endpoint: Endpoint,
        timeout: float,
        *,
        asked_for: bool = True,
        limits: Limits | None = None,
    ) -> None:
        """Prepare; `timeout` bounds one request, in seconds.

        A collector that has no place for a signal that was not `asked_for` is no reason to warn. Raises
        ConfigError where a standard OTEL_EXPORTER_OTLP_* variable cannot be used, or the package for HTTP is
        missing.
        """
        self._limits = limits or Limits()
        self._form = form_of(signal)
        self._loss_level = logging.WARNING if asked_for else logging.INFO
        sender = otlp.build(endpoint, timeout, signal=signal)
        self._spool = Spool(
            None,
            max_size=self._limits.size,
            max_age=self._limits.age,
            form=self._form,
            settings={},
            loss_level=self._loss_level,
        )
        self.delivery = Delivery(
            self._form,
            self._spool,
            sender,
            str(endpoint),
            self._limits.pause,
            confirm=False,
            asked_for=asked_for,
        )

    def export(self, encode: Callable[[Sequence[Any]], Any], batch: Sequence[Any]) -> bool:
        """Queue what `encode` makes of a batch, a request message; whether all of it could be encoded.

        An item that OTLP cannot carry is lost alone, and counted.
        """
        lost, reason = 0, ""
        try:
            message = encode(batch)
        except Exception as error:  # noqa: BLE001 - the SDK's encoder raises anything
            reason = f"{type(error).__name__}: {error}"
            encodable = [item for item in batch if _is_encodable(encode, item)]
            lost = len(batch) - len(encodable)
            message = encode(encodable)
        self.delivery.keep(list(split(message, self._form, self._limits.request_size)))
        if lost:
            self.delivery.tally.lost("unencodable", lost)
            self._form.logger.warning(
                "%d of %d %s are lost: they cannot be encoded: %s", lost, len(batch), self._form.items, reason
            )
        return not lost

    def shutdown(self, flush: Callable[[], object], timeout: float) -> None:
        """Send what waits and end, within `timeout` seconds even where the collector hangs.

        `flush` exports what the SDK still holds. A second call does nothing.
        """
        deadline = time.monotonic() + timeout
        flush()
        self.delivery.drain(deadline - time.monotonic())
        self.delivery.close()
        if left := self._spool.requests:
            message = "%s: %s not delivered and lost"
            self._form.logger.log(self._loss_level, message, self._form.export, counted(left, "request"))
        self._spool.close()


def _is_encodable(encode: Callable[[Sequence[Any]], Any], item: object) -> bool:
    try:
        encode([item])
    except Exception:  # noqa: BLE001 - the same
        return False
    return True

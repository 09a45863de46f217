"""Spans and log records of the poller itself, and the metrics of all exports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from poller.commands.wiring import version
from poller.tracing import Tracing

if TYPE_CHECKING:
    from poller.delivery import Delivery
    from poller.export import Push
    from poller.settings import Settings


class _Part(Protocol):
    delivery: Delivery

    def shutdown(self, timeout: float) -> None: ...


class Telemetry:
    """Spans and log records on their way to the collector; where neither is wanted, no SDK is imported."""

    def __init__(self, settings: Settings | None, push: Push | None = None) -> None:
        """Begin what the settings want, None nothing; `push` shows what becomes of all exports, its own too.

        Raises ConfigError where a standard variable cannot be used, or the package for HTTP is missing.
        """
        self._parts: list[_Part] = []
        self.tracing = Tracing()
        if settings is None:
            return
        own = push if settings.self_metrics != "off" else None
        if settings.traces_to is not None or settings.logs_to is not None:
            self._open(settings, own)
        if own is not None:
            from poller import exportmetrics

            exportmetrics.register(own.meter, [own.delivery, *(part.delivery for part in self._parts)])

    def _open(self, settings: Settings, own: Push | None) -> None:
        from poller.export import resource

        meter_provider = own.meter_provider if own is not None else None
        described = resource(settings.service_name, settings.instance, version())
        if settings.traces_to is not None:
            from poller.spanexport import Spans

            kinds = {settings.source(name).kind for name in ("traces", "traces_endpoint")}
            spans = Spans(
                settings.traces_to,
                described,
                settings.export_timeout,
                asked_for=kinds != {"default"},
                meter_provider=meter_provider,
            )
            self._parts.append(spans)
            self.tracing = Tracing(spans.tracer)
        if settings.logs_to is not None:
            from poller.logexport import LogRecords

            records = LogRecords(
                settings.logs_to, described, settings.export_timeout, meter_provider=meter_provider
            )
            self._parts.append(records)

    def shutdown(self, timeout: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Send what waits and end, within `timeout` seconds even where the collector hangs.

        As soon as `stopped` is true, it waits no longer.
        """
        endings = [
            threading.Thread(target=part.shutdown, args=[timeout], name="ending", daemon=True)
            for part in self._parts
        ]
        for ending in endings:
            ending.start()
        deadline = time.monotonic() + timeout + 0.2
        for ending in endings:
            while ending.is_alive() and not stopped() and (left := deadline - time.monotonic()) > 0:
                ending.join(min(left, 0.2))

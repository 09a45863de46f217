"""Open what the poller tells of itself beside metrics: its spans and its log records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from poller.commands.wiring import version
from poller.tracing import Tracing

if TYPE_CHECKING:
    from poller.settings import Settings


class _Part(Protocol):
    def shutdown(self, timeout: float) -> None: ...


class Telemetry:
    """Spans and log records on their way to the collector; where neither is wanted, no SDK is imported."""

    def __init__(self, settings: Settings | None) -> None:
        """Begin what the settings want, None nothing.

        Raises ConfigError where a standard variable cannot be used, or the package for HTTP is missing.
        """
        self._parts: list[_Part] = []
        self.tracing = Tracing()
        if settings is None or (settings.traces_to is None and settings.logs_to is None):
            return
        from poller.export import resource

        described = resource(settings.service_name, settings.instance, version())
        if settings.traces_to is not None:
            from poller.spanexport import Spans

            kinds = {settings.source(name).kind for name in ("traces", "traces_endpoint")}
            spans = Spans(
                settings.traces_to, described, settings.export_timeout, asked_for=kinds != {"default"}
            )
            self._parts.append(spans)
            self.tracing = Tracing(spans.tracer)
        if settings.logs_to is not None:
            from poller.logexport import LogRecords

            self._parts.append(LogRecords(settings.logs_to, described, settings.export_timeout))

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

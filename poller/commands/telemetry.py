"""Open what the poller tells of itself beside metrics: its spans and its log records."""

from __future__ import annotations

import threading
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

            spans = Spans(settings.traces_to, described, settings.export_timeout)
            self._parts.append(spans)
            self.tracing = Tracing(spans.tracer)
        if settings.logs_to is not None:
            from poller.logexport import LogRecords

            self._parts.append(LogRecords(settings.logs_to, described, settings.export_timeout))

    def shutdown(self, timeout: float) -> None:
        """Send what waits and end, within `timeout` seconds even where the collector hangs."""
        endings = [
            threading.Thread(target=part.shutdown, args=[timeout], name="ending", daemon=True)
            for part in self._parts
        ]
        for ending in endings:
            ending.start()
        for ending in endings:
            ending.join(timeout + 0.2)

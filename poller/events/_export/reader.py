"""Metric reader that exports at an interval and on request.

It imports the SDK, so no module imports it before telemetry is configured.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricReader, MetricsData

from poller.events._export.delivery import Delivery
from poller.events._privacy.views import scrub_metrics

logger = logging.getLogger(__name__)


class Reader(MetricReader):
    """Exports the metrics every `interval` seconds and on request.

    The SDK's own thread ends permanently at the first error of a collection (1.45), and in a forked child it
    keeps the parent's counts.
    """

    def __init__(self, delivery: Delivery, interval: float) -> None:
        exporter = delivery.exporter
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)  # noqa: SLF001 - readers need them
        self._delivery = delivery
        self._interval = interval
        self._collected: MetricsData | None = None
        self._ending = threading.Event()
        self._pushing = threading.Lock()
        self._collecting = threading.RLock()

    def start(self) -> None:
        """Start the export thread."""
        threading.Thread(target=self._tick, name="push-metrics", daemon=True).start()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Export now; return whether it was delivered. Never raises, to keep the export thread alive."""
        del timeout_millis
        with self._pushing:
            try:
                return self._push()
            except Exception:  # errors of the SDK, of callbacks and of scrubbing
                logger.exception("the metrics could not be exported")
                return False

    def _push(self) -> bool:
        with self._collecting:
            self.collect()
            collected, self._collected = self._collected, None
        if collected is None:
            return True
        return self._delivery.export(scrub_metrics(collected)) is MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Stop the periodic export."""
        del timeout_millis, kwargs
        self._ending.set()

    def pause(self) -> None:
        """Block collections, because a child would inherit a lock held by a thread that it does not have."""
        self._collecting.acquire()

    def resume(self) -> None:
        """Allow collections again."""
        self._collecting.release()

    def restart(self, provider: MeterProvider) -> None:
        """Reset in a forked child: discard the counts and start an export thread in this process."""
        self._pushing, self._collecting = threading.Lock(), threading.RLock()
        self._collected = None
        provider.remove_metric_reader(self)  # discards its stored data as well
        provider.add_metric_reader(self)
        self._ending = threading.Event()
        self.start()

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        del timeout_millis, kwargs
        self._collected = metrics_data

    def _tick(self) -> None:
        ending = self._ending
        while not ending.wait(self._interval):
            self.force_flush()

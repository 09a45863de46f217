"""Metric reader that exports at an interval and on request.

It knows the SDK, so that nothing imports it before telemetry is configured.
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
    """Pushes what the meters show every `interval` seconds and when told.

    The SDK's own thread ends for good at the first error of a collection (1.45), and keeps in a forked child
    what the parent has counted.
    """

    def __init__(self, delivery: Delivery, interval: float) -> None:
        exporter = delivery.exporter
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)  # noqa: SLF001 - readers ask for them
        self._delivery = delivery
        self._interval = interval
        self._collected: MetricsData | None = None
        self._ending = threading.Event()
        self._pushing = threading.Lock()
        self._collecting = threading.RLock()

    def start(self) -> None:
        """Begin to push."""
        threading.Thread(target=self._tick, name="push-metrics", daemon=True).start()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Push now; returns whether it arrived. Raises nothing, as that would end the pushing for good."""
        del timeout_millis
        with self._pushing:
            try:
                return self._push()
            except Exception:  # the SDK's own, the callbacks', and those of scrubbing
                logger.exception("the metrics could not be pushed")
                return False

    def _push(self) -> bool:
        with self._collecting:
            self.collect()
            collected, self._collected = self._collected, None
        if collected is None:
            return True
        return self._delivery.export(scrub_metrics(collected)) is MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Push no more by itself."""
        del timeout_millis, kwargs
        self._ending.set()

    def hold(self) -> None:
        """Let no metrics be collected: a child would find them locked by a thread that it lacks."""
        self._collecting.acquire()

    def let_go(self) -> None:
        """Let them be collected again."""
        self._collecting.release()

    def begin_anew(self, provider: MeterProvider) -> None:
        """In a forked child: forget what was counted, and push by a thread of this process."""
        self._pushing, self._collecting = threading.Lock(), threading.RLock()
        self._collected = None
        provider.remove_metric_reader(self)  # and what it has stored
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

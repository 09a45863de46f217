"""Tracer, meter and logger providers of this process, with their export pipelines, fork-safe.

It imports the SDK, so no module imports it before telemetry is configured.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased

from poller.events._export.delivery import UNITS, Delivery
from poller.events._export.exporters import build
from poller.events._export.reader import Reader
from poller.events._export.settings import SignalEndpoint, TelemetrySettings
from poller.events._privacy.processors import ScrubbedLoggerProvider, ScrubbedTracerProvider
from poller.events._privacy.views import permitting
from poller.events.metrics import export_zeros_again
from poller.model.otlp_endpoint import Signal
from poller.model.text import counted

logger = logging.getLogger(__name__)

_RESULTS: dict[Signal, Any] = {
    "traces": SpanExportResult,
    "metrics": MetricExportResult,
    "logs": LogRecordExportResult,
}


class _Flushable(Protocol):
    def force_flush(self) -> object: ...


class Pipelines:
    """Providers of this process and their export pipelines.

    A forked child starts with counts of zero, empty queues, its own connections and threads, and its own
    `service.instance.id`, which the SDK (1.43 and later) sets.
    """

    def __init__(self, settings: TelemetrySettings, attributes: Mapping[str, str]) -> None:
        """Build the pipelines of the settings, with `attributes` in the resource.

        Raises TelemetryError if an exporter cannot be built.
        """
        resource = Resource.create(attributes)
        self.tracer_provider = ScrubbedTracerProvider(
            _sampler(settings), resource=resource, shutdown_on_exit=False
        )
        self.meter_provider: MeterProvider | None = None
        self.logger_provider: ScrubbedLoggerProvider | None = None
        self._flushed: list[tuple[_Flushable, Delivery]] = []
        self._reader: Reader | None = None
        if target := settings.targets.get("traces"):
            delivery = _delivery("traces", target)
            spans = BatchSpanProcessor(delivery)  # type: ignore[arg-type]  # duck-typed exporter
            self.tracer_provider.add_span_processor(spans)
            self._flushed.append((spans, delivery))
        if target := settings.targets.get("metrics"):
            delivery = _delivery("metrics", target)
            self._reader = Reader(delivery, settings.metrics_interval)
            self.meter_provider = MeterProvider(
                [self._reader], resource, shutdown_on_exit=False, views=[permitting()]
            )
            self._flushed.append((self._reader, delivery))
            self._reader.start()
        if target := settings.targets.get("logs"):
            delivery = _delivery("logs", target)
            self.logger_provider = ScrubbedLoggerProvider(resource, shutdown_on_exit=False)
            records = BatchLogRecordProcessor(delivery)  # type: ignore[arg-type]  # duck-typed exporter
            self.logger_provider.add_log_record_processor(records)
            self._flushed.append((records, delivery))
        self._closer = _Closer(self._flushed)
        _at_fork(self)

    def flush(self, timeout: float) -> list[str]:
        """Export everything within `timeout` seconds; return the undelivered items, like `12 spans`."""
        return _Closer(self._flushed).close(timeout, end=False)

    def shutdown(self, timeout: float) -> list[str]:
        """Export everything within `timeout` seconds and stop; return the undelivered items."""
        if self._reader is not None:
            self._reader.shutdown()
        return self._closer.close(timeout, end=True)

    def before_fork(self) -> None:
        """Stop collections and requests in progress, because a child could not continue them."""
        if self._reader is not None:
            self._reader.pause()
        for _, delivery in self._flushed:
            delivery.before_fork()

    def after_fork_in_parent(self) -> None:
        """Resume collecting and sending."""
        for _, delivery in self._flushed:
            delivery.after_fork_in_parent()
        if self._reader is not None:
            self._reader.resume()

    def after_fork_in_child(self) -> None:
        """Reset the pipelines; the SDK has already emptied its queues and started its threads."""
        for _, delivery in self._flushed:
            delivery.after_fork_in_child()
        if self._reader is not None and self.meter_provider is not None:
            self._reader.restart(self.meter_provider)
            export_zeros_again()
        self._closer = _Closer(self._flushed)


class _Closer:
    """Flushes one pipeline after the other in a thread that is started in advance.

    During interpreter shutdown no thread can be started (Python 3.12).
    """

    def __init__(self, flushed: list[tuple[_Flushable, Delivery]]) -> None:
        self._pipelines = [(flushable, delivery, threading.Event()) for flushable, delivery in flushed]
        self._failed: set[Delivery] = set()
        self._go = threading.Event()
        if self._pipelines:
            threading.Thread(target=self._run, name="flush", daemon=True).start()

    def close(self, timeout: float, *, end: bool) -> list[str]:
        """Give each pipeline its share of `timeout` (seconds); with `end` shut down its exporter afterwards.

        Returns what was not delivered.
        """
        deadline = time.monotonic() + timeout
        before = [(delivery.failures, delivery.lost) for _, delivery, _ in self._pipelines]
        self._go.set()
        missing = []
        for index, (flushable, delivery, done) in enumerate(self._pipelines):
            share = (deadline - time.monotonic()) / (len(self._pipelines) - index)
            in_time = done.wait(max(0.0, share))
            failures, lost = before[index]
            if not in_time or delivery.failures != failures or delivery in self._failed:
                undelivered = 0 if in_time else delivery.sending + _waiting(flushable)
                number = delivery.lost - lost + undelivered
                # Metrics that were not collected have no count; an empty queue has lost nothing.
                if number or delivery.signal == "metrics":
                    unit = UNITS[delivery.signal]
                    missing.append(counted(number, unit) if number else f"all {unit}s")
            if end:
                # Also cancels a request in flight, which would delay the next pipeline.
                delivery.shutdown()
        return missing

    def _run(self) -> None:
        self._go.wait()
        for flushable, delivery, done in self._pipelines:
            arrived: object = False
            with contextlib.suppress(Exception):
                arrived = flushable.force_flush()
            if arrived is False:
                self._failed.add(delivery)
            done.set()


def _waiting(flushable: _Flushable) -> int:
    """Return the queue length of the SDK's batch processor, which does not expose it (1.45)."""
    return len(getattr(getattr(flushable, "_batch_processor", None), "_queue", ()))


def _sampler(settings: TelemetrySettings) -> Sampler | None:
    if "traces" not in settings.targets:
        # Every log record needs a trace id; the spans are not recorded.
        return ParentBased(ALWAYS_OFF)
    if settings.sampling_ratio is None:
        return None  # the SDK reads OTEL_TRACES_SAMPLER
    return ParentBased(TraceIdRatioBased(settings.sampling_ratio))


def _delivery(signal: Signal, target: SignalEndpoint) -> Delivery:
    return Delivery(signal, target, partial(build, signal, target), _RESULTS[signal])


def _at_fork(pipelines: Pipelines) -> None:
    """Register fork hooks with a weak reference to the pipelines, because hooks cannot be unregistered."""
    reference = weakref.ref(pipelines)

    def call(method: Callable[[Pipelines], None]) -> None:
        if existing := reference():
            method(existing)

    os.register_at_fork(
        before=lambda: call(Pipelines.before_fork),
        after_in_parent=lambda: call(Pipelines.after_fork_in_parent),
        after_in_child=lambda: call(Pipelines.after_fork_in_child),
    )

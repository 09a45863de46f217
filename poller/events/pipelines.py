"""Collect spans, metrics and log records of this process, and push them until it ends, forks included.

It knows the SDK, so that nothing imports it before telemetry is configured.
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
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased

from poller.events.delivery import Delivery
from poller.events.dimensions import permitting, scrub_metrics
from poller.events.exporters import build
from poller.events.metrics import begin_again
from poller.events.scrubbing import ScrubbedLoggerProvider, ScrubbedTracerProvider
from poller.events.settings import TelemetrySettings
from poller.events.target import Signal, Target

logger = logging.getLogger(__name__)

_RESULTS: dict[Signal, Any] = {
    "traces": SpanExportResult,
    "metrics": MetricExportResult,
    "logs": LogRecordExportResult,
}


class _Flushable(Protocol):
    def force_flush(self) -> object: ...


class Pipelines:
    """The providers of this process, and what they push by.

    A forked child begins anew: its counts at zero, nothing of the parent's in its queues, connections and
    threads of its own, and a `service.instance.id` of its own, which the SDK (1.43 and later) sees to.
    """

    def __init__(self, settings: TelemetrySettings, attributes: Mapping[str, str]) -> None:
        """Build what the settings want, with `attributes` in the resource.

        Raises TelemetryError where an exporter cannot be built.
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
            spans = BatchSpanProcessor(delivery)  # type: ignore[arg-type]  # an exporter in all but name
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
            records = BatchLogRecordProcessor(delivery)  # type: ignore[arg-type]  # an exporter in all but name
            self.logger_provider.add_log_record_processor(records)
            self._flushed.append((records, delivery))
        self._closer = _Closer(self._flushed)
        _at_fork(self)

    def flush(self, timeout: float) -> bool:
        """Push all there is within `timeout` seconds; returns whether all of it arrived."""
        return _Closer(self._flushed).close(timeout, end=False)

    def shutdown(self, timeout: float) -> bool:
        """Push all there is within `timeout` seconds and end; returns whether all of it arrived."""
        if self._reader is not None:
            self._reader.shutdown()
        return self._closer.close(timeout, end=True)

    def before_fork(self) -> None:
        """Have nothing under way that a child could not go on with."""
        if self._reader is not None:
            self._reader.hold()
        for _, delivery in self._flushed:
            delivery.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        for _, delivery in self._flushed:
            delivery.after_fork_in_parent()
        if self._reader is not None:
            self._reader.let_go()

    def after_fork_in_child(self) -> None:
        """Begin anew; the SDK has emptied its queues and started its threads by now."""
        for _, delivery in self._flushed:
            delivery.after_fork_in_child()
        if self._reader is not None and self.meter_provider is not None:
            self._reader.begin_anew(self.meter_provider)
            begin_again()
        self._closer = _Closer(self._flushed)


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
        """Push now; returns whether it arrived."""
        del timeout_millis
        with self._pushing:
            try:
                with self._collecting:
                    self.collect()
                    collected, self._collected = self._collected, None
            except Exception:  # the SDK's own and the callbacks': none may end the pushing
                logger.exception("the metrics could not be collected")
                return False
            if collected is None:
                return True
            result = self._delivery.export(scrub_metrics(collected))
            return result is MetricExportResult.SUCCESS

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


class _Closer:
    """Flushes one pipeline after the other in a thread that waits from the beginning.

    At the interpreter's end no thread can be started any more (Python 3.12).
    """

    def __init__(self, flushed: list[tuple[_Flushable, Delivery]]) -> None:
        self._pipelines = [(one, delivery, threading.Event()) for one, delivery in flushed]
        self._go = threading.Event()
        if self._pipelines:
            threading.Thread(target=self._run, name="flush", daemon=True).start()

    def close(self, timeout: float, *, end: bool) -> bool:
        """Give each pipeline its share of the time; `end` ends its exporter after that."""
        deadline = time.monotonic() + timeout
        before = [delivery.failures for _, delivery, _ in self._pipelines]
        self._go.set()
        arrived = True
        for index, (_, delivery, done) in enumerate(self._pipelines):
            share = (deadline - time.monotonic()) / (len(self._pipelines) - index)
            arrived = done.wait(max(0.0, share)) and delivery.failures == before[index] and arrived
            if end:
                # It ends a request in flight, too, for which the next pipeline would have to wait.
                delivery.shutdown()
        return arrived

    def _run(self) -> None:
        self._go.wait()
        for flushable, _, done in self._pipelines:
            with contextlib.suppress(Exception):
                flushable.force_flush()
            done.set()


def _sampler(settings: TelemetrySettings) -> Sampler | None:
    if "traces" not in settings.targets:
        # Every line of the log has a trace all the same; nothing else is kept of it.
        return ParentBased(ALWAYS_OFF)
    if settings.sampling_ratio is None:
        return None  # the SDK reads OTEL_TRACES_SAMPLER
    return ParentBased(TraceIdRatioBased(settings.sampling_ratio))


def _delivery(signal: Signal, target: Target) -> Delivery:
    return Delivery(signal, target, partial(build, signal, target), _RESULTS[signal])


def _at_fork(pipelines: Pipelines) -> None:
    """Tell the pipelines of forks for as long as they are; what is registered can never be taken back."""
    reference = weakref.ref(pipelines)

    def tell(method: Callable[[Pipelines], None]) -> None:
        if found := reference():
            method(found)

    os.register_at_fork(
        before=lambda: tell(Pipelines.before_fork),
        after_in_parent=lambda: tell(Pipelines.after_fork_in_parent),
        after_in_child=lambda: tell(Pipelines.after_fork_in_child),
    )

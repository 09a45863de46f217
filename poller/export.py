"""Push whatever the meter shows over OTLP, gRPC or HTTP."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from poller import otlp
from poller.model import format_duration
from poller.redaction import learn, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.metrics import Meter

    from poller.endpoint import Endpoint

logger = logging.getLogger(__name__)

CARDINALITY_LIMIT = 1_000_000_000
"""Attribute sets of one instrument before the SDK folds the rest into one point, whose value is nobody's.

It counts the sets *ever seen* (opentelemetry-sdk 1.45.2; its default is 2000), so that any limit is reached
in time. How many are alive at once is bounded before: by max_series."""

_EXPORTERS = "opentelemetry.exporter"


def resource(service_name: str, instance: str, version: str) -> Resource:
    """Describe this process: our three attributes, and what OTEL_RESOURCE_ATTRIBUTES adds to them.

    `service.instance.id` is always ours: the SDK's is random, and each restart would begin every series anew.
    """
    return Resource.create(
        {"service.name": service_name, "service.instance.id": instance, "service.version": version}
    )


class Push:
    """A meter, and a thread that pushes what it shows: every `interval` seconds, at `flush` and at the end.

    The thread is ours because the SDK's ends for good at the first error of a collection.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        resource: Resource,
        *,
        interval: float = math.inf,
        timeout: float = 10.0,
        cardinality_limit: int = CARDINALITY_LIMIT,
        produce: Callable[[int], Sequence[Metric]] = lambda _: (),
    ) -> None:
        """Begin to push; the first push is one interval away. Infinite: only `flush` and `shutdown` push.

        What `produce` makes of a time (nanoseconds since 1970) is pushed beside what the meter shows; it is
        called at every collection. `timeout` bounds one request with all its retries; both are in seconds.
        Raises ConfigError where the standard OTEL_EXPORTER_OTLP_* variables cannot be used, or the package
        for HTTP is missing.
        """
        self._interval = interval
        self._delivery = Delivery(
            otlp.build(endpoint, timeout), str(endpoint), otlp.secrets(endpoint), produce
        )
        self._reader = PeriodicExportingMetricReader(self._delivery, export_interval_millis=math.inf)
        self._provider = MeterProvider(
            [self._reader], resource, shutdown_on_exit=False, views=_views(cardinality_limit)
        )
        self.meter: Meter = self._provider.get_meter(
            "poller", str(resource.attributes.get("service.version", ""))
        )
        self._one_at_a_time = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._ticker: threading.Thread | None = None
        if math.isfinite(interval):
            self._ticker = threading.Thread(target=self._tick, name="push", daemon=True)
            self._ticker.start()

    @property
    def last_export_ok(self) -> bool | None:
        """Whether the collector took the last push; None before the first."""
        return self._delivery.last_export_ok

    def soon(self) -> None:
        """Push at once on the push's own thread, without waiting for it or for its interval."""
        self._wake.set()

    def flush(self, timeout: float = math.inf) -> bool:
        """Push now and tell the truth: whether the collector took all of it within `timeout` seconds."""
        return self._collect_within(timeout)

    def shutdown(self, timeout: float = 10.0) -> bool:
        """Push the last values once more and end, within `timeout` seconds even where the collector hangs.

        Returns whether the collector took them. A second call does nothing.
        """
        if self._stopping.is_set():
            return bool(self.last_export_ok)
        self._stopping.set()
        self._wake.set()
        done = self._collect_within(timeout)
        if not done and self._delivery.busy:
            logger.warning("the last values were not exported within %s", format_duration(timeout))
        # First the exporter, which ends a request in flight; the provider would wait for it.
        self._delivery.shutdown()
        with contextlib.suppress(Exception):
            self._provider.shutdown(timeout_millis=100)
        if self._ticker is not None:
            self._ticker.join(timeout=0.1)
        return done

    def _tick(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._interval)
            self._wake.clear()
            if not self._stopping.is_set():
                self._collect()

    def _collect_within(self, timeout: float) -> bool:
        results: list[bool] = []
        worker = threading.Thread(target=lambda: results.append(self._collect()), name="flush", daemon=True)
        worker.start()
        worker.join(None if math.isinf(timeout) else timeout)
        return bool(results) and results[0]

    def _collect(self) -> bool:
        with self._one_at_a_time:
            failures = self._delivery.failures
            try:
                self._reader.collect()
            except Exception:  # the SDK's own and the callbacks': none may end the pushing
                logger.exception("the metrics could not be collected")
                return False
            return self._delivery.failures == failures


class Delivery(MetricExporter):
    """Knows whether the collector takes what it is sent, and says so when that changes.

    The reader lets an exporter's result fall and `force_flush` answers True after a failure (SDK 1.45), so
    that nobody further out can know. The reason stands only in the exporters' own log records: those are kept
    from the log, and the last becomes part of our one line.
    """

    def __init__(
        self,
        inner: MetricExporter,
        endpoint: str,
        secrets: Iterable[str] = (),
        produce: Callable[[int], Sequence[Metric]] = lambda _: (),
    ) -> None:
        """Wrap `inner`; `endpoint` is what the log shows, `secrets` what it must not."""
        super().__init__(
            preferred_temporality=inner._preferred_temporality,  # noqa: SLF001 - the reader asks us for it
            preferred_aggregation=inner._preferred_aggregation,  # noqa: SLF001 - the same
        )
        self._inner = inner
        self._endpoint = endpoint
        self._produce = produce
        learn(*secrets)
        self._reasons = _Reasons()
        self._failing_since: float | None = None
        self._failing_times = 0
        self._ended = False
        self.busy = False
        self.last_export_ok: bool | None = None
        self.successes = 0
        self.failures = 0

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send, count, and announce a change."""
        self._reasons.clear()
        self.busy = True
        try:
            result = self._inner.export(self._joined(metrics_data), timeout_millis, **kwargs)
        except Exception as error:  # noqa: BLE001 - one value that cannot be encoded raises anything
            self._reasons.add(f"{type(error).__name__}: {error}")
            result = MetricExportResult.FAILURE
        self.busy = False
        self.last_export_ok = result is MetricExportResult.SUCCESS
        if self.last_export_ok:
            self.successes += 1
            self._recovered()
        else:
            self.failures += 1
            self._failed()
        return result

    def _joined(self, collected: MetricsData) -> MetricsData:
        """What the meter shows and what is produced beside it, under one resource and one scope."""
        if not collected.resource_metrics:
            return collected  # as when the collector is only asked whether it is there
        (told,) = collected.resource_metrics
        (scope,) = told.scope_metrics
        metrics = [*self._produce(time.time_ns()), *scope.metrics]
        scopes = [ScopeMetrics(scope.scope, metrics, scope.schema_url)]
        return MetricsData([ResourceMetrics(told.resource, scopes, told.schema_url)])

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """End the inner exporter, and with it a request in flight."""
        del kwargs
        if not self._ended:
            self._ended = True
            with contextlib.suppress(Exception):
                self._inner.shutdown(timeout_millis)

    def _failed(self) -> None:
        self._failing_times += 1
        if self._ended:
            return  # it was cut short by us, which is no news of the collector
        reason = self._masked(self._reasons.best())
        extra = {"endpoint": self._endpoint}
        if self._failing_since is not None:
            logger.debug("export failed again: %s", reason, extra=extra | {"failures": self._failing_times})
            return
        self._failing_since = time.monotonic()
        logger.warning("export failed, the next values will be tried again: %s", reason, extra=extra)

    def _recovered(self) -> None:
        if self._failing_since is None:
            return
        away = format_duration(round(time.monotonic() - self._failing_since))
        extra = {"endpoint": self._endpoint, "failures": self._failing_times}
        logger.info("export works again after %s", away, extra=extra)
        self._failing_since, self._failing_times = None, 0

    def _masked(self, text: str) -> str:
        return redact(text)


class _Reasons(logging.Handler):
    """Catches what the exporters log, in the order of its coming, instead of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []
        exporters = logging.getLogger(_EXPORTERS)
        exporters.handlers = [self]
        exporters.propagate = False
        exporters.setLevel(logging.WARNING)
        # Drops what was logged within 20 s before, so that a second outage would have no reason.
        logging.getLogger(f"{_EXPORTERS}.otlp.proto.grpc.exporter").filters.clear()

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())

    def add(self, message: str) -> None:
        self._messages.append(message)

    def clear(self) -> None:
        self._messages.clear()

    def best(self) -> str:
        """The last message that says why; HTTP's very last one does not when retries were tried before."""
        if not self._messages:
            return "no reason was given"
        telling = [message for message in self._messages if "due to timeout, max retries" not in message]
        return " ".join((telling or self._messages)[-1].split())


def _views(limit: int) -> list[View]:
    # 1.45.1 has neither the parameter nor the limit.
    if "aggregation_cardinality_limit" not in inspect.signature(View).parameters:
        return []
    return [View(instrument_name="*", aggregation_cardinality_limit=limit)]

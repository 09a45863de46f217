"""Periodic exporter of all metrics: collection, encoding and hand-over to the delivery."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.resources import Resource

from poller.model.duration import format_duration
from poller.model.leader import NO_ELECTION, Leadership
from poller.model.retry import RETRY, RetryConfig
from poller.model.series import starting_in_time
from poller.model.text import counted
from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.preferences import read_preferences
from poller.otlp.request import MAX_SIZE, SCOPE, Request, encode, is_encodable
from poller.otlp.retry_sender import RetrySender
from poller.otlp.sender import build_sender
from poller.otlp.signals import format_of

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from poller.model.otlp_endpoint import Endpoint
    from poller.model.query import AttributeValue
    from poller.otlp.sending_queue import SendingQueue

logger = logging.getLogger(__name__)

SILENT_INTERVALS = 3
"""Intervals without a delivered export after which `poller health` reports that the export fails."""


class MetricSource(Protocol):
    """Source of metrics with a resource of their own, such as those of a target."""

    @property
    def resource(self) -> Resource:
        """The resource of the last collection."""

    def collect(self) -> list[Metric]:
        """Return the metrics with their data points; called at every collection."""

    def confirm_export(self) -> None:
        """Note that the metrics of the last collection are in the queue, from which they are delivered."""


def resource(
    service_name: str, instance: str, version: str, more: Mapping[str, AttributeValue] = MappingProxyType({})
) -> Resource:
    """Return a resource with three attributes of the poller, `more` and OTEL_RESOURCE_ATTRIBUTES.

    `service.instance.id` is always set, because the SDK's default is random and each restart would create
    new series.
    """
    own = {"service.name": service_name, "service.instance.id": instance, "service.version": version}
    return Resource.create({**more, **own})


def resource_of_target(process: Resource, instance: str, more: Mapping[str, AttributeValue]) -> Resource:
    """Return the resource of a target: that of its `process`, with `more` and another `service.instance.id`.

    Equal to `resource`, which reads the environment and takes some milliseconds.
    """
    return process.merge(Resource({**more, "service.instance.id": instance}))


class MetricExporter:
    """A meter, and a thread that collects its metrics every `interval` seconds, at `flush` and at the end.

    Collected metrics are encoded at once and stored in the queue, from which they are delivered. So a slow
    or unreachable collector delays no collection. The SDK's own thread is not used because it ends at the
    first error of a collection.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        resource: Resource,
        queue: SendingQueue,
        *,
        interval: float = math.inf,
        timeout: float = 10.0,
        retry: RetryConfig = RETRY,
        request_size: int = MAX_SIZE,
        leadership: Leadership = NO_ELECTION,
    ) -> None:
        """Start to export, beginning with the contents of `queue`; the first collection is one interval away.

        With an infinite `interval` only `flush` and `shutdown` collect. `timeout` bounds one request; both
        are in seconds. Pauses between two attempts are at most one interval. A request has at most
        `request_size` bytes, or one data point. What `add` added is exported only if this process leads
        before and after the collection. `shutdown` closes the queue. Raises ConfigError if a standard
        OTEL_* variable cannot be used, or if the package for HTTP is missing.
        """
        self._interval = interval
        self._unencodable: set[str] = set()
        self._patience = 900.0 + 20 * timeout
        self._turned = time.monotonic()
        self._queue = queue
        self._resource = resource
        self._request_size = request_size
        self._leadership = leadership
        self._version = str(resource.attributes.get("service.version", ""))
        preferences = read_preferences(os.environ)
        self._reader = OnDemandReader(preferences.temporality, preferences.aggregation)
        self._sources: dict[MetricSource, None] = {}
        """In the order of their addition."""
        self._collected: list[MetricSource] = []
        """The sources of the last collection whose export is not confirmed yet."""
        sender = build_sender(endpoint, timeout)
        self._provider = MeterProvider(
            [self._reader], resource, preferences.exemplar_filter, shutdown_on_exit=False
        )
        self.meter: Meter = self._provider.get_meter(SCOPE, self._version)
        """Meter for instruments that live as long as the process."""
        retry = replace(retry, longest_pause=min(interval, retry.longest_pause))
        # The result of a single push is its exit code.
        self._delivery = RetrySender(
            format_of("metrics"), queue, sender, str(endpoint), retry, confirm=math.isfinite(interval)
        )
        self._turn = threading.Lock()
        self._adding = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._ticker: threading.Thread | None = None
        if math.isfinite(interval):
            self._ticker = threading.Thread(target=self._tick, name="push", daemon=True)
            self._ticker.start()

    def add(self, source: MetricSource) -> None:
        """Export the metrics of `source` as well."""
        with self._adding:
            self._sources[source] = None

    def remove(self, source: MetricSource) -> None:
        """Export the metrics of `source` no more."""
        with self._adding:
            self._sources.pop(source, None)

    @property
    def resource(self) -> Resource:
        """The resource of this process."""
        return self._resource

    @property
    def last_export_ok(self) -> bool | None:
        """Whether the collector accepted the last request; None before the first."""
        return self._delivery.last_ok

    @property
    def delivery(self) -> RetrySender:
        """The delivery of the exports, with its counts."""
        return self._delivery

    @property
    def meter_provider(self) -> MeterProvider:
        """The meter provider of `meter`."""
        return self._provider

    def stuck(self, now: float) -> str | None:
        """Return why a thread counts as hung at `now` (monotonic seconds); None while both make progress.

        An unreachable or hanging collector is no such reason, because every request ends at its timeout.
        """
        if self._ticker is None or self._stopping.is_set():
            return None
        collecting = now - self._turned - self._interval
        if collecting > self._patience:
            return f"no metrics were collected for {format_duration(round(collecting))}"
        since = self._delivery.busy_since
        if since is not None and now - since > self._patience:
            return f"one request is being sent for {format_duration(round(now - since))}"
        return None

    def soon(self) -> None:
        """Start a collection on the push thread at once; returns without waiting for it."""
        self._wake.set()

    def silent(self, now: float) -> float | None:
        """Return the seconds without a delivered export at `now` (monotonic seconds); None if not silent."""
        silent = now - self._delivery.accepted_at
        return silent if silent > SILENT_INTERVALS * self._interval else None

    def flush(
        self,
        timeout: float = 10.0,
        *,
        patient: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Push now; return whether the collector accepted everything within `timeout` seconds.

        Requests that already wait go first; undelivered requests stay queued. Unless `patient`, the call
        returns after the first failed attempt if the queue outlives the process. It also returns as soon as
        `stopped` returns true.
        """
        with self._turn:
            requests = self._collect()
            # Inside the lock, because a later collection must not enter the queue before this one.
            ticket = self._delivery.enqueue(requests or [], watched=True)
            self._confirm()
        patient = patient or not self._queue.outlives
        accepted = self._delivery.wait(ticket, timeout, patient=patient, stopped=stopped)
        return accepted and requests is not None

    def shutdown(
        self,
        timeout: float = 10.0,
        *,
        patient: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Push the last values and end, within `timeout` seconds even if the collector hangs.

        `patient` and `stopped` are those of `flush`. Returns whether the collector accepted everything. A
        second call only returns whether the last request was accepted.
        """
        if self._stopping.is_set():
            return bool(self.last_export_ok)
        self._stopping.set()
        self._wake.set()
        done = self.flush(timeout, patient=patient, stopped=stopped)
        self._delivery.close()
        self._log_undelivered()
        self._queue.close()
        with contextlib.suppress(Exception):
            self._provider.shutdown(timeout_millis=100)
        if self._ticker is not None:
            self._ticker.join(timeout=0.1)
        return done

    def _tick(self) -> None:
        due = time.monotonic() + self._interval
        while not self._stopping.is_set():
            self._turned = time.monotonic()
            requested = self._wake.wait(max(0.0, due - self._turned))
            self._wake.clear()
            # Count from the due time, not from the end of a collection, or every interval would be longer.
            now = time.monotonic()
            due = now + self._interval if requested or due + self._interval < now else due + self._interval
            try:
                with self._turn:
                    if not self._stopping.is_set():
                        self._delivery.enqueue(self._collect() or [])
                        self._confirm()
            except Exception:  # for example out of threads or memory; no error may end the thread
                logger.exception("the collected metrics could not be stored")

    def _confirm(self) -> None:
        while self._collected:
            self._collected.pop().confirm_export()

    def _collect(self) -> list[Request] | None:
        """Collect and encode all metrics; return None if that fails."""
        self._collected = []
        begun = time.time_ns()
        try:
            # By identity, because the hash of a resource is expensive.
            groups: dict[int, tuple[Resource, list[Metric]]] = {}
            with self._adding:  # held for a moment, because a collection may take long
                sources = list(self._sources) if self._leadership.leads else []
            collected = []
            for source in sources:
                if (metrics := _collected(source)) is not None:
                    resource = source.resource
                    groups.setdefault(id(resource), (resource, []))[1].extend(metrics)
                    collected.append(source)
            if not self._leadership.leads:
                groups.clear()
                collected.clear()
            own = groups.setdefault(id(self._resource), (self._resource, []))[1]
            own += map(starting_in_time, self._reader.read())
            try:
                requests = self._encode(list(groups.values()), begun)
            except Exception:  # noqa: BLE001 - the SDK's encoder raises anything for a value OTLP cannot carry
                encodable = [
                    (resource, list(filter(self._is_encodable, metrics)))
                    for resource, metrics in groups.values()
                ]
                requests = self._encode(encodable, begun)
            self._collected = collected
            return requests
        except Exception:  # errors of the SDK and of callbacks; no error may end the thread
            logger.exception("the metrics could not be collected")
            return None

    def _encode(self, groups: Sequence[tuple[Resource, list[Metric]]], begun: int) -> list[Request]:
        """Encode each metric with points from before `begun` in requests of its own, and the others together.

        Prometheus refuses a whole request if one of its data points is too old.
        """
        batches: dict[str, list[tuple[Resource, list[Metric]]]] = {"": []}
        for resource, metrics in groups:
            by_batch: dict[str, list[Metric]] = {}
            for metric in metrics:
                is_past = any(point.time_unix_nano < begun for point in metric.data.data_points)
                by_batch.setdefault(metric.name if is_past else "", []).append(metric)
            for name, members in by_batch.items():
                batches.setdefault(name, []).append((resource, members))
        return [
            request
            for batch in batches.values()
            for request in encode(batch, self._version, self._request_size)
        ]

    def _is_encodable(self, metric: Metric) -> bool:
        if is_encodable(metric):
            return True
        self._delivery.stats.count_lost("unencodable", len(metric.data.data_points))
        if metric.name not in self._unencodable:
            logger.warning("metric %s is not exported: it has a value that OTLP cannot carry", metric.name)
            self._unencodable.add(metric.name)
        return False

    def _log_undelivered(self) -> None:
        where, lost = self._queue.folder, self._queue.in_memory
        if left := self._queue.requests - lost:
            count_text = counted(left, "request")
            logger.warning("%s not delivered; kept in %s for the next start", count_text, where)
        if lost:
            why = "POLLER_STATE_DIR is not set" if where is None else f"nothing could be stored in {where}"
            logger.warning("%s not delivered and lost; %s", counted(lost, "request"), why)


def _collected(source: MetricSource) -> list[Metric] | None:
    """Return the metrics of one source; an error is logged and does not affect the other sources."""
    try:
        return source.collect()
    except Exception:
        logger.exception("a part of the metrics could not be collected")
        return None

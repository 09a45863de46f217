"""Metrics API of a messaging server: one typed method per event."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from weakref import WeakSet

from opentelemetry.metrics import MeterProvider, Observation, get_meter_provider

from poller.events._catalog.declaration import Event, Instrument
from poller.events._catalog.events import EVENTS
from poller.events._catalog.instruments import Instruments, Labels, Timed
from poller.events._catalog.semconv import HttpServer
from poller.events.attributes import (
    HTTP_METHODS,
    OTHER,
    Component,
    DropReason,
    MessageStatus,
    NotificationEvent,
    NotificationStatus,
    PushError,
    RateLimitDecision,
)
from poller.events.catalog import GenerationName, declared

logger = logging.getLogger(__name__)

SCOPE = "poller.events"
"""Name of the instrumentation scope."""
_EVENTS = {event.name: event for event in EVENTS}
_MOST_CACHED = 10_000
"""Maximum number of cached attribute sets of HTTP requests; further sets are built for each request."""


class PoolState(NamedTuple):
    """Connection counts of a database pool at one moment."""

    active: int
    """Connections in use."""
    idle: int
    """Open connections that are not in use."""
    waiting: int | None
    """Callers that wait for a connection; None if the pool does not expose this count."""


class EventMetrics:
    """Typed methods for every event of the catalogue, under the metric names of one generation.

    A process needs only one instance. Every method may be called from any thread. Without an SDK the methods
    record nothing and do not fail. If the generation has no metric for an event, its method does nothing.

    A type checker rejects values that the catalogue does not declare. At run time such a value is counted as
    `_OTHER` and logged once, because a misspelt value must neither fail a request nor lose a count.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        namespace: str | None = None,
        generation: GenerationName = "document",
        *,
        semconv: bool = False,
    ) -> None:
        """Create the instruments with `meter_provider`, or with the global provider, which may be set later.

        `namespace` replaces the generation's own prefix; it precedes every name, followed by an underscore.
        `semconv` adds `http.server.request.duration` and `http.server.active_requests` of OpenTelemetry's
        semantic conventions, which ready-made dashboards use. Raises ValueError if the generation does not
        exist.
        """
        self.metrics = declared(generation, namespace)
        """Declared metrics by event name."""
        meter = (meter_provider or get_meter_provider()).get_meter(SCOPE)
        self._make = make = Instruments(meter, self.metrics)
        self._counter = {event.name: make.counter(event) for event in _of_kind("counter")}
        self._open = {event.name: make.up_down_counter(event) for event in _of_kind("updowncounter")}
        self._histogram = {event.name: make.histogram(event) for event in _of_kind("histogram")}
        self._health: dict[str, tuple[int, float]] = {}
        make.observable_gauge(_EVENTS["health_checked"], self._healthy)
        self._labels = {
            event.name: Labels(event.attributes[0])
            for event in EVENTS
            if len(event.attributes) == 1 and event.attributes[0].values
        }
        self._requests: dict[tuple[str, str, int], dict[str, str]] = {}
        self._routes: dict[str, dict[str, str]] = {}
        self._semconv = HttpServer(meter) if semconv else None
        self._pools: list[Callable[[], PoolState]] = []
        self._failing: set[Callable[[], PoolState]] = set()
        self._pools_exported = False
        self._begin_at_zero()
        _instances.add(self)

    # --- accounts and devices

    def user_registered(self) -> None:
        """Count a sign-up."""
        self._counter["user_registered"].add(1)

    def logged_in(self) -> None:
        """Count a successful login."""
        self._counter["logged_in"].add(1)

    def token_refreshed(self) -> None:
        """Count a refresh token exchanged for a new token."""
        self._counter["token_refreshed"].add(1)

    def logged_out(self) -> None:
        """Count a successful logout."""
        self._counter["logged_out"].add(1)

    def device_created(self) -> None:
        """Count a new device."""
        self._counter["device_created"].add(1)

    def device_deleted(self) -> None:
        """Count a deleted device."""
        self._counter["device_deleted"].add(1)

    def key_taken_over(self) -> None:
        """Count an identity key that was replaced by another key. This is a security event."""
        self._counter["key_taken_over"].add(1)

    def prekeys_low(self) -> None:
        """Count a detection of a low supply of one-time pre-keys."""
        self._counter["prekeys_low"].add(1)

    # --- messages

    def message_sent(self, status: MessageStatus = "success", count: int = 1) -> None:
        """Count processed messages."""
        self._counter["message_sent"].add(count, self._labels["message_sent"][status])

    def messages_fetched(self, count: int) -> None:
        """Record the number of pending messages that one fetch returned, including 0."""
        self._histogram["messages_fetched"].record(count)

    def inbox_overflowed(self, count: int = 1) -> None:
        """Count messages that were removed because an inbox was full."""
        self._counter["inbox_overflowed"].add(count)

    # --- attachments and backups

    def attachment_uploaded(self, size: int) -> None:
        """Count the bytes of a stored attachment and record its size in bytes."""
        self._counter["attachment_uploaded"].add(size)
        self._histogram["attachment_size"].record(size)

    def attachments_deleted(self, count: int) -> None:
        """Count removed expired attachments."""
        self._counter["attachments_deleted"].add(count)

    def attachment_cleanup_failed(self) -> None:
        """Count a failed cleanup cycle of attachments."""
        self._counter["attachment_cleanup_failed"].add(1)

    def backup_uploaded(self, size: int) -> None:
        """Count the bytes of a stored backup and record its size in bytes."""
        self._counter["backup_uploaded"].add(size)
        self._histogram["backup_size"].record(size)

    def backup_cleanup_ran(self, cleaned: int) -> None:
        """Count a successful cleanup cycle of backups, and the abandoned backups that it reset."""
        self._counter["backup_cleanup_ran"].add(1)
        self._counter["backups_cleaned"].add(cleaned)

    def backup_cleanup_failed(self) -> None:
        """Count a failed cleanup cycle of backups."""
        self._counter["backup_cleanup_failed"].add(1)

    # --- WebSockets

    def websocket_session(self) -> Timed:
        """Count a connection as open while the `with` block runs, and record its duration in seconds.

        The counts are exact whether the block returns, raises an exception or is cancelled.
        """
        return Timed(self._histogram["websocket_session"], self._open["websocket_connections"])

    def websocket_outbound_dropped(self, reason: DropReason, count: int = 1) -> None:
        """Count outgoing messages that the server dropped instead of delivering them."""
        self._counter["websocket_outbound_dropped"].add(
            count, self._labels["websocket_outbound_dropped"][reason]
        )

    def websocket_acks_received(self) -> None:
        """Count one WebSocket message that contains acknowledgements."""
        self._counter["websocket_acks_received"].add(1)

    def websocket_acks_dropped(self, count: int = 1) -> None:
        """Count acknowledgements that were dropped because their queue was full."""
        self._counter["websocket_acks_dropped"].add(count)

    def websocket_acks_flushed(self, count: int) -> None:
        """Record the number of acknowledgements that one write to the database contained."""
        self._histogram["websocket_acks_flushed"].record(count)

    # --- notifications

    def notification_sent(self, status: NotificationStatus = "sent", count: int = 1) -> None:
        """Count attempts to notify a device."""
        self._counter["notification_sent"].add(count, self._labels["notification_sent"][status])

    def notification_received(self, event: NotificationEvent) -> None:
        """Count a notification received from the publishing service."""
        self._counter["notification_received"].add(1, self._labels["notification_received"][event])

    def notification_unrouted(self, event: NotificationEvent) -> None:
        """Count a notification for a device that is not connected to this process."""
        self._counter["notification_unrouted"].add(1, self._labels["notification_unrouted"][event])

    def notification_processed(self) -> None:
        """Count a notification that the worker handled."""
        self._counter["notification_processed"].add(1)

    def notification_channel_opened(self) -> None:
        """Add a device's channel to the channels held in memory."""
        self._open["notification_channels"].add(1)

    def notification_channels_reclaimed(self, count: int) -> None:
        """Count channels closed for lack of listeners, and subtract them from the channels in memory."""
        self._open["notification_channels"].add(-count)
        self._counter["notification_channels_reclaimed"].add(count)

    def notification_cleanup(self) -> Timed:
        """Record the duration of the channel cleanup in the `with` block, in seconds."""
        return Timed(self._histogram["notification_cleanup"])

    def push_sent(self, count: int = 1) -> None:
        """Count push notifications that the provider accepted."""
        self._counter["push_sent"].add(count)

    def push_failed(self, reason: PushError, count: int = 1) -> None:
        """Count push notifications that failed."""
        self._counter["push_failed"].add(count, self._labels["push_failed"][reason])

    def push_token_invalid(self, count: int = 1) -> None:
        """Count push tokens that the provider no longer recognises."""
        self._counter["push_token_invalid"].add(count)

    # --- the server itself

    def rate_limit_decided(self, status: RateLimitDecision) -> None:
        """Count a request that the rate limit allowed or throttled."""
        self._counter["rate_limit_decided"].add(1, self._labels["rate_limit_decided"][status])

    def http_request(
        self,
        method: str,
        route: str,
        status: int,
        duration: float,
        *,
        scheme: str = "http",
        protocol_version: str = "",
        error_type: str | None = None,
    ) -> None:
        """Count an answered HTTP request and record its duration in seconds.

        `route` must be the matched template or `unmatched`, because each route creates a series. An unknown
        method becomes `_OTHER`, because clients choose the method. `scheme`, `protocol_version` (`1.1`) and
        `error_type` (class name of the exception) are attributes of `http.server.request.duration` only.
        """
        labels = self._requests.get((method, route, status))
        if labels is None:
            label = method if method in HTTP_METHODS else OTHER
            labels = {"method": label, "route": route, "status": str(status)}
            if label == method and len(self._requests) < _MOST_CACHED:
                self._requests[method, route, status] = labels
                self._routes[route] = {"route": route}
        self._counter["http_request"].add(1, labels)
        self._histogram["http_request_duration"].record(duration, self._routes.get(route) or {"route": route})
        if self._semconv is not None:
            self._semconv.answered(
                labels["method"], route, status, duration, scheme, protocol_version, error_type
            )

    def http_requests_active(self, change: int, method: str, scheme: str = "http") -> None:
        """Add `change` to the requests in progress: 1 at the start and -1 at the end; needs `semconv`."""
        if self._semconv is not None:
            self._semconv.active(change, method if method in HTTP_METHODS else OTHER, scheme)

    def health_checked(self, component: Component, ok: bool, valid_for: float = math.inf) -> None:
        """Report whether a component works, as 1 or 0, until its next check.

        After `valid_for` seconds without another check the value is omitted, because the state is unknown.
        """
        labels = self._labels["health_checked"]
        # Undeclared components would share a series and overwrite each other.
        if labels[component] is not labels.other:
            self._health[component] = int(ok), time.monotonic() + valid_for

    def watch_db_pool(self, read: Callable[[], PoolState]) -> Callable[[], None]:
        """Export a pool's connection counts at every collection; return a function that stops it.

        The counts of several pools are added up. `read` runs in the exporting thread and must not block.
        """
        if not self._pools_exported:
            self._pools_exported = True
            for part, event in enumerate(("db_pool_active", "db_pool_idle", "db_pool_waiting")):
                self._make.observable_gauge(_EVENTS[event], partial(self._pooled, part))
        self._pools.append(read)
        return lambda: self._pools.remove(read)

    def _pooled(self, part: int) -> list[Observation]:
        states = [state for state in map(self._read_pool, tuple(self._pools)) if state is not None]
        counts = [count for state in states if (count := state[part]) is not None]
        return [Observation(sum(counts))] if counts else []

    def _read_pool(self, read: Callable[[], PoolState]) -> PoolState | None:
        """Return one pool's connections, or None on failure, so that the other pools are still exported."""
        try:
            state = read()
        except Exception:
            if read not in self._failing:
                self._failing.add(read)
                logger.exception("the connections of a database pool cannot be read")
            return None
        self._failing.discard(read)
        return state

    def _healthy(self) -> list[Observation]:
        now, labels = time.monotonic(), self._labels["health_checked"]
        states = sorted(self._health.items())
        return [Observation(ok, labels[component]) for component, (ok, until) in states if now < until]

    def _begin_at_zero(self) -> None:
        """Export every series that is known in advance with the value 0.

        Prometheus sees no increase when a series first appears, so an alert on key takeovers would miss the
        first one.
        """
        for event, counter in self._counter.items():
            if not _EVENTS[event].attributes:
                counter.add(0)
            for labels in self._labels.get(event, {}).values():
                counter.add(0, labels)
        for up_down_counter in self._open.values():
            up_down_counter.add(0)


_instances: WeakSet[EventMetrics] = WeakSet()


def export_zeros_again() -> None:
    """Export every series that is known in advance again, after a fork has reset the counts of a process."""
    for instance in tuple(_instances):
        instance._begin_at_zero()  # noqa: SLF001 - defined in this module
        instance._health.clear()  # noqa: SLF001 - defined in this module


def _of_kind(instrument: Instrument) -> Iterator[Event]:
    return (event for event in EVENTS if event.instrument == instrument)

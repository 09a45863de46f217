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
_KEPT = 10_000
"""Attribute sets of HTTP requests that are kept ready; what is beyond is made anew each time."""


class PoolState(NamedTuple):
    """The connections of a database pool at one moment."""

    active: int
    """In use."""
    idle: int
    """Open, and waiting to be used."""
    waiting: int | None
    """Callers that wait for one; None where the pool does not tell."""


class EventMetrics:
    """Every event of the catalogue, under the names of one generation.

    One for a process will do; every method may be called from any thread. Without an SDK nothing is recorded
    and nothing fails. Where the generation has no metric for an event, its method does nothing.

    A type checker refuses a value that the catalogue does not declare. At run time it is counted as `_OTHER`
    and logged once, so that no misspelt word can fail a request or lose a count.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        namespace: str | None = None,
        generation: GenerationName = "document",
        *,
        semconv: bool = False,
    ) -> None:
        """Make the instruments at `meter_provider`, or at the global one, which may be set later.

        `namespace` stands before every name, with an underscore, in place of the generation's own. `semconv`
        adds `http.server.request.duration` and `http.server.active_requests` of OpenTelemetry's semantic
        conventions, which ready-made dashboards use. Raises ValueError where there is no such generation.
        """
        self.metrics = declared(generation, namespace)
        """What is declared, by the names of the events."""
        meter = (meter_provider or get_meter_provider()).get_meter(SCOPE)
        self._make = make = Instruments(meter, self.metrics)
        self._counter = {one.name: make.counter(one) for one in _of_kind("counter")}
        self._open = {one.name: make.up_down_counter(one) for one in _of_kind("updowncounter")}
        self._histogram = {one.name: make.histogram(one) for one in _of_kind("histogram")}
        self._health: dict[str, tuple[int, float]] = {}
        make.observable_gauge(_EVENTS["health_checked"], self._healthy)
        self._labels = {
            one.name: Labels(one.attributes[0])
            for one in EVENTS
            if len(one.attributes) == 1 and one.attributes[0].values
        }
        self._requests: dict[tuple[str, str, int], dict[str, str]] = {}
        self._routes: dict[str, dict[str, str]] = {}
        self._semconv = HttpServer(meter) if semconv else None
        self._pools: list[Callable[[], PoolState]] = []
        self._failing: set[Callable[[], PoolState]] = set()
        self._pools_shown = False
        self._begin_at_zero()
        _everyone.add(self)

    # --- accounts and devices

    def user_registered(self) -> None:
        """Count a sign-up."""
        self._counter["user_registered"].add(1)

    def logged_in(self) -> None:
        """Count a successful login."""
        self._counter["logged_in"].add(1)

    def token_refreshed(self) -> None:
        """Count a refresh token that was exchanged for a new one."""
        self._counter["token_refreshed"].add(1)

    def logged_out(self) -> None:
        """Count a successful logout."""
        self._counter["logged_out"].add(1)

    def device_created(self) -> None:
        """Count a device that was set up."""
        self._counter["device_created"].add(1)

    def device_deleted(self) -> None:
        """Count a device that was deleted."""
        self._counter["device_deleted"].add(1)

    def key_taken_over(self) -> None:
        """Count an identity key that was replaced by another: a security event."""
        self._counter["key_taken_over"].add(1)

    def prekeys_low(self) -> None:
        """Count one time that a supply of one-time pre-keys was found low."""
        self._counter["prekeys_low"].add(1)

    # --- messages

    def message_sent(self, status: MessageStatus = "success", count: int = 1) -> None:
        """Count messages that were processed."""
        self._counter["message_sent"].add(count, self._labels["message_sent"][status])

    def messages_fetched(self, count: int) -> None:
        """Record how many pending messages one fetch returned, 0 included."""
        self._histogram["messages_fetched"].record(count)

    def inbox_overflowed(self, count: int = 1) -> None:
        """Count messages that were removed because an inbox was full."""
        self._counter["inbox_overflowed"].add(count)

    # --- attachments and backups

    def attachment_uploaded(self, size: int) -> None:
        """Count the bytes of an attachment that was stored, and record its size."""
        self._counter["attachment_uploaded"].add(size)
        self._histogram["attachment_size"].record(size)

    def attachments_deleted(self, count: int) -> None:
        """Count expired attachments that were removed."""
        self._counter["attachments_deleted"].add(count)

    def attachment_cleanup_failed(self) -> None:
        """Count a cleanup cycle of attachments that failed."""
        self._counter["attachment_cleanup_failed"].add(1)

    def backup_uploaded(self, size: int) -> None:
        """Count the bytes of a backup that was stored, and record its size."""
        self._counter["backup_uploaded"].add(size)
        self._histogram["backup_size"].record(size)

    def backup_cleanup_ran(self, cleaned: int) -> None:
        """Count a cleanup cycle of backups that went well, and the abandoned backups that it reset."""
        self._counter["backup_cleanup_ran"].add(1)
        self._counter["backups_cleaned"].add(cleaned)

    def backup_cleanup_failed(self) -> None:
        """Count a cleanup cycle of backups that failed."""
        self._counter["backup_cleanup_failed"].add(1)

    # --- WebSockets

    def websocket_session(self) -> Timed:
        """Count a connection as open while the `with` block runs, and record its duration in seconds.

        Exact however the block ends: returned, raised or cancelled.
        """
        return Timed(self._histogram["websocket_session"], self._open["websocket_connections"])

    def websocket_outbound_dropped(self, reason: DropReason, count: int = 1) -> None:
        """Count outgoing messages that were dropped instead of being delivered."""
        self._counter["websocket_outbound_dropped"].add(
            count, self._labels["websocket_outbound_dropped"][reason]
        )

    def websocket_acks_received(self) -> None:
        """Count one WebSocket message that acknowledges something."""
        self._counter["websocket_acks_received"].add(1)

    def websocket_acks_dropped(self, count: int = 1) -> None:
        """Count acknowledgements that were dropped because their queue was full."""
        self._counter["websocket_acks_dropped"].add(count)

    def websocket_acks_flushed(self, count: int) -> None:
        """Record how many acknowledgements were written to the database together."""
        self._histogram["websocket_acks_flushed"].record(count)

    # --- notifications

    def notification_sent(self, status: NotificationStatus = "sent", count: int = 1) -> None:
        """Count attempts to notify a device."""
        self._counter["notification_sent"].add(count, self._labels["notification_sent"][status])

    def notification_received(self, event: NotificationEvent) -> None:
        """Count a notification that came from the publishing service."""
        self._counter["notification_received"].add(1, self._labels["notification_received"][event])

    def notification_unrouted(self, event: NotificationEvent) -> None:
        """Count a notification that came for a device which is not connected here."""
        self._counter["notification_unrouted"].add(1, self._labels["notification_unrouted"][event])

    def notification_processed(self) -> None:
        """Count a notification that the worker handled."""
        self._counter["notification_processed"].add(1)

    def notification_channel_opened(self) -> None:
        """Count a device's channel as held in memory, until it is reclaimed."""
        self._open["notification_channels"].add(1)

    def notification_channels_reclaimed(self, count: int) -> None:
        """Count channels that were given up because nobody listened; they are no longer held."""
        self._open["notification_channels"].add(-count)
        self._counter["notification_channels_reclaimed"].add(count)

    def notification_cleanup(self) -> Timed:
        """Record how long the cleanup of channels in the `with` block takes, in seconds."""
        return Timed(self._histogram["notification_cleanup"])

    def push_sent(self, count: int = 1) -> None:
        """Count push notifications that the provider took."""
        self._counter["push_sent"].add(count)

    def push_failed(self, reason: PushError, count: int = 1) -> None:
        """Count push notifications that failed."""
        self._counter["push_failed"].add(count, self._labels["push_failed"][reason])

    def push_token_invalid(self, count: int = 1) -> None:
        """Count push tokens that the provider does not know any more."""
        self._counter["push_token_invalid"].add(count)

    # --- the server itself

    def rate_limit_decided(self, status: RateLimitDecision) -> None:
        """Count a request that the rate limit let through or throttled."""
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
        """Count an HTTP request that was answered, and record its duration in seconds.

        `route` must be the template that matched, or `unmatched`: each makes a series. A method that HTTP
        does not know becomes `_OTHER`, for methods are the clients' choice. `scheme`, `protocol_version`
        (`1.1`) and `error_type` (an exception's) are attributes of `http.server.request.duration` only.
        """
        labels = self._requests.get((method, route, status))
        if labels is None:
            known = method if method in HTTP_METHODS else OTHER
            labels = {"method": known, "route": route, "status": str(status)}
            if known == method and len(self._requests) < _KEPT:
                self._requests[method, route, status] = labels
                self._routes[route] = {"route": route}
        self._counter["http_request"].add(1, labels)
        self._histogram["http_request_duration"].record(duration, self._routes.get(route) or {"route": route})
        if self._semconv is not None:
            self._semconv.answered(
                labels["method"], route, status, duration, scheme, protocol_version, error_type
            )

    def http_requests_active(self, change: int, method: str, scheme: str = "http") -> None:
        """Add to the requests in progress, 1 at the begin of one and -1 at its end; only with `semconv`."""
        if self._semconv is not None:
            self._semconv.active(change, method if method in HTTP_METHODS else OTHER, scheme)

    def health_checked(self, component: Component, ok: bool, valid_for: float = math.inf) -> None:
        """Show whether a component works, as 1 or 0, until it is checked again.

        After `valid_for` seconds without that, nothing is shown: nobody knows by then.
        """
        labels = self._labels["health_checked"]
        # Several unknown ones would overwrite each other.
        if labels[component] is not labels.other:
            self._health[component] = int(ok), time.monotonic() + valid_for

    def watch_db_pool(self, read: Callable[[], PoolState]) -> Callable[[], None]:
        """Show a pool's connections at every collection, several pools in sum; what is returned ends it.

        `read` is called in the exporting thread: it must only look, and not wait.
        """
        if not self._pools_shown:
            self._pools_shown = True
            for part, event in enumerate(("db_pool_active", "db_pool_idle", "db_pool_waiting")):
                self._make.observable_gauge(_EVENTS[event], partial(self._pooled, part))
        self._pools.append(read)
        return lambda: self._pools.remove(read)

    def _pooled(self, part: int) -> list[Observation]:
        told = [state[part] for state in map(self._look, tuple(self._pools)) if state is not None]
        known = [value for value in told if value is not None]
        return [Observation(sum(known))] if known else []

    def _look(self, read: Callable[[], PoolState]) -> PoolState | None:
        """One pool's connections; None if they cannot be read, which must not hide the other pools."""
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
        found = sorted(self._health.items())
        return [Observation(ok, labels[component]) for component, (ok, until) in found if now < until]

    def _begin_at_zero(self) -> None:
        """Show every series that is known beforehand.

        To Prometheus the first increase of a series that was not there is none, and an alert on key takeovers
        would miss the first.
        """
        for event, counter in self._counter.items():
            if not _EVENTS[event].attributes:
                counter.add(0)
            for labels in self._labels.get(event, {}).values():
                counter.add(0, labels)
        for up_down_counter in self._open.values():
            up_down_counter.add(0)


_everyone: WeakSet[EventMetrics] = WeakSet()


def begin_again() -> None:
    """Show every series that is known beforehand once more, in a process whose counts were forgotten."""
    for one in tuple(_everyone):
        one._begin_at_zero()  # noqa: SLF001 - of this module
        one._health.clear()  # noqa: SLF001 - the same


def _of_kind(instrument: Instrument) -> Iterator[Event]:
    return (event for event in EVENTS if event.instrument == instrument)

"""Measured events of a messaging server."""

from __future__ import annotations

from poller.events import attributes
from poller.events._catalog import declaration
from poller.events._catalog.declaration import Attribute, Event


def _counter(name: str, unit: str, description: str, *own: Attribute) -> Event:
    return Event(name, "counter", unit, description, own)


def _open(name: str, unit: str, description: str) -> Event:
    return Event(name, "updowncounter", unit, description)


def _histogram(
    name: str, unit: str, description: str, boundaries: tuple[float, ...], *own: Attribute
) -> Event:
    return Event(name, "histogram", unit, description, own, boundaries)


def _gauge(name: str, unit: str, description: str, *own: Attribute) -> Event:
    return Event(name, "gauge", unit, description, own)


EVENTS = (
    # Accounts and devices.
    _counter("user_registered", "{user}", "Users that signed up."),
    _counter("logged_in", "{login}", "Successful logins."),
    _counter("token_refreshed", "{refresh}", "Refresh tokens exchanged for new tokens."),
    _counter("logged_out", "{logout}", "Successful logouts."),
    _counter("device_created", "{device}", "Devices set up."),
    _counter("device_deleted", "{device}", "Devices deleted."),
    _counter("key_taken_over", "{takeover}", "Identity keys replaced by another key (security events)."),
    _counter("prekeys_low", "{event}", "Detections of a low supply of one-time pre-keys."),
    # Messages.
    _counter("message_sent", "{message}", "Messages processed.", attributes.MESSAGE_STATUS),
    _histogram("messages_fetched", "{message}", "Pending messages returned by one fetch.", declaration.BATCH),
    _counter("inbox_overflowed", "{message}", "Messages removed because an inbox was full."),
    # Attachments and backups.
    _counter("attachment_uploaded", "By", "Bytes of attachments uploaded."),
    _histogram("attachment_size", "By", "Size of an uploaded attachment.", declaration.BYTES),
    _counter("attachments_deleted", "{attachment}", "Expired attachments removed."),
    _counter("attachment_cleanup_failed", "{cycle}", "Cleanup cycles of attachments that failed."),
    _counter("backup_uploaded", "By", "Bytes of backups uploaded."),
    _histogram("backup_size", "By", "Size of an uploaded backup.", declaration.BYTES),
    _counter("backup_cleanup_ran", "{cycle}", "Successful cleanup cycles of backups."),
    _counter("backups_cleaned", "{backup}", "Abandoned backups reset."),
    _counter("backup_cleanup_failed", "{cycle}", "Cleanup cycles of backups that failed."),
    # WebSockets.
    _open("websocket_connections", "{connection}", "WebSocket connections that are open."),
    _histogram("websocket_session", "s", "Duration of a WebSocket session.", declaration.SESSION),
    _counter(
        "websocket_outbound_dropped",
        "{message}",
        "Outgoing WebSocket messages dropped instead of being delivered.",
        attributes.DROP_REASON,
    ),
    _counter("websocket_acks_received", "{message}", "WebSocket messages with acknowledgements."),
    _counter("websocket_acks_dropped", "{ack}", "Acknowledgements dropped because their queue was full."),
    _histogram(
        "websocket_acks_flushed", "{ack}", "Acknowledgements in one write to the database.", declaration.BATCH
    ),
    # Notifications.
    _counter(
        "notification_sent", "{notification}", "Attempts to notify a device.", attributes.NOTIFICATION_STATUS
    ),
    _counter(
        "notification_received",
        "{notification}",
        "Notifications received from the publishing service.",
        attributes.NOTIFICATION_EVENT,
    ),
    _counter(
        "notification_unrouted",
        "{notification}",
        "Notifications received for a device that is not connected to this process.",
        attributes.NOTIFICATION_EVENT,
    ),
    _counter("notification_processed", "{notification}", "Notifications that the worker handled."),
    _open("notification_channels", "{channel}", "Channels of devices held in memory."),
    _counter("notification_channels_reclaimed", "{channel}", "Channels closed because they had no listener."),
    _histogram("notification_cleanup", "s", "Duration of one cleanup of the channels.", declaration.CLEANUP),
    _counter("push_sent", "{notification}", "Push notifications that the provider accepted."),
    _counter("push_failed", "{notification}", "Push notifications that failed.", attributes.PUSH_ERROR),
    _counter("push_token_invalid", "{token}", "Push tokens that the provider no longer recognises."),
    # The server itself.
    _counter(
        "rate_limit_decided",
        "{decision}",
        "Requests that the rate limit allowed or throttled.",
        attributes.RATE_LIMIT_DECISION,
    ),
    _counter(
        "http_request",
        "{request}",
        "HTTP requests answered.",
        attributes.HTTP_METHOD,
        attributes.HTTP_ROUTE,
        attributes.HTTP_STATUS,
    ),
    _histogram(
        "http_request_duration",
        "s",
        "Time from an HTTP request's arrival to the end of its response.",
        declaration.REQUEST,
        attributes.HTTP_ROUTE,
    ),
    _gauge("health_checked", "", "1 if the component works, 0 if it does not.", attributes.COMPONENT),
    _gauge("db_pool_active", "{connection}", "Connections of the database pool in use."),
    _gauge("db_pool_idle", "{connection}", "Idle connections of the database pool."),
    _gauge("db_pool_waiting", "{request}", "Callers that wait for a connection of the database pool."),
)

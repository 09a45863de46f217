"""Every event that a server can report, once each."""

from __future__ import annotations

from collections.abc import Callable

from poller.events import EventMetrics, PoolState

Do = Callable[[EventMetrics], object]


def session(metrics: EventMetrics) -> None:
    with metrics.websocket_session():
        pass


def request(metrics: EventMetrics) -> None:
    metrics.http_requests_active(1, "GET")  # has no effect unless it is enabled
    metrics.http_request("GET", "/v1/devices/{deviceId}", 404, 0.25)


def cleanup(metrics: EventMetrics) -> None:
    with metrics.notification_cleanup():
        pass


# Actions, and the new values of the server's generation after each, without durations.
EVENT_CALLS: list[tuple[Do, dict[str, float]]] = [
    (lambda m: m.user_registered(), {"registrations_total{}": 1}),
    (lambda m: m.logged_in(), {"logins_total{}": 1}),
    (lambda m: m.token_refreshed(), {"token_refreshes_total{}": 1}),
    (lambda m: m.logged_out(), {"logouts_total{}": 1}),
    (lambda m: m.device_created(), {"devices_created_total{}": 1}),
    (lambda m: m.device_deleted(), {"devices_deleted_total{}": 1}),
    (lambda m: m.key_taken_over(), {"key_takeovers_total{}": 1}),
    (lambda m: m.prekeys_low(), {"prekey_threshold_reached_total{}": 1}),
    (lambda m: m.message_sent(), {"messages_sent_total{status=success}": 1}),
    (lambda m: m.message_sent("failure", 2), {"messages_sent_total{status=failure}": 2}),
    (lambda m: m.messages_fetched(7), {"message_fetch_batch_size{}": 7}),
    (lambda m: m.inbox_overflowed(3), {"messages_overflow_total{}": 3}),
    (
        lambda m: m.attachment_uploaded(5000),
        {"attachment_upload_bytes_total{}": 5000, "attachment_upload_size_bytes{}": 5000},
    ),
    (lambda m: m.attachments_deleted(4), {"attachments_deleted_total{}": 4}),
    (lambda m: m.attachment_cleanup_failed(), {"attachment_cleanup_errors_total{}": 1}),
    (
        lambda m: m.backup_uploaded(64),
        {"backup_upload_bytes_total{}": 64, "backup_upload_size_bytes{}": 64},
    ),
    (lambda m: m.backup_cleanup_ran(2), {"backup_cleanup_runs{}": 1, "backup_cleanup_cleaned{}": 2}),
    (lambda m: m.backup_cleanup_failed(), {"backup_cleanup_errors{}": 1}),
    (session, {"websocket_session_duration_seconds{}": 1}),
    (
        lambda m: m.websocket_outbound_dropped("channel_closed", 2),
        {"websocket_outbound_dropped_total{reason=channel_closed}": 2},
    ),
    (lambda m: m.websocket_acks_received(), {"websocket_acks_received_total{}": 1}),
    (lambda m: m.websocket_acks_dropped(5), {"websocket_ack_dropped_total{}": 5}),
    (lambda m: m.websocket_acks_flushed(100), {"websocket_ack_batch_size{}": 100}),
    (lambda m: m.notification_sent(), {"notifications_sent_total{status=sent}": 1}),
    (lambda m: m.notification_sent("error", 3), {"notifications_sent_total{status=error}": 3}),
    (
        lambda m: m.notification_received("PreKeyLow"),
        {"notifications_received_total{event=PreKeyLow}": 1},
    ),
    (
        lambda m: m.notification_unrouted("Disconnect"),
        {"notifications_unrouted_total{event=Disconnect}": 1},
    ),
    (lambda m: m.notification_processed(), {"notification_worker_processed_total{}": 1}),
    (lambda m: m.notification_channel_opened(), {"notification_channels{}": 1}),
    (
        lambda m: m.notification_channels_reclaimed(2),
        {"notification_channels{}": -2, "notification_channels_reclaimed_total{}": 2},
    ),
    (cleanup, {"notification_cleanup_duration_seconds{}": 1}),
    (lambda m: m.push_sent(2), {"push_notifications_sent_total{}": 2}),
    (lambda m: m.push_failed("quota_exceeded"), {"push_notification_errors_total{reason=quota_exceeded}": 1}),
    (lambda m: m.push_token_invalid(), {"push_invalid_tokens_total{}": 1}),
    (lambda m: m.rate_limit_decided("throttled"), {"rate_limit_decisions_total{status=throttled}": 1}),
    (
        request,
        {
            "http_server_requests_total{method=GET,route=/v1/devices/{deviceId},status=404}": 1,
            "http_server_request_duration_seconds{route=/v1/devices/{deviceId}}": 1,
        },
    ),
    (
        lambda m: m.http_request("BREW", "unmatched", 405, 0.25),
        {
            "http_server_requests_total{method=_OTHER,route=unmatched,status=405}": 1,
            "http_server_request_duration_seconds{route=unmatched}": 1,
        },
    ),
    (lambda m: m.health_checked("storage", ok=True), {"health_status{component=storage}": 1}),
    (
        lambda m: m.watch_db_pool(lambda: PoolState(3, 2, 1)),
        {"db_pool_active_connections{}": 3, "db_pool_idle_connections{}": 2, "db_pool_waiting_requests{}": 1},
    ),
]

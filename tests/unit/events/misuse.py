"""Correct and incorrect use of the events, only for the type checker; it never runs.

Each line with an ignore must be an error of that kind: under `warn_unused_ignores` an ignore without its
error is an error itself.
"""

from __future__ import annotations

from poller.events import Component, EventMetrics, PoolState, declared


def good(metrics: EventMetrics, component: Component) -> None:
    metrics.message_sent()
    metrics.message_sent("failure", 2)
    metrics.message_sent(status="success", count=3)
    metrics.notification_sent("no_receivers")
    metrics.websocket_outbound_dropped("buffer_full")
    metrics.health_checked(component, ok=True)
    metrics.health_checked("pubsub", ok=False)
    metrics.http_request("GET", "/v1/messages", 200, 0.25)
    with metrics.websocket_session():
        metrics.messages_fetched(7)
    metrics.watch_db_pool(lambda: PoolState(1, 2, 0))()
    EventMetrics(namespace="acme", generation="v0.9.4")
    assert declared("document")["message_sent"].name


def bad(metrics: EventMetrics, text: str) -> None:
    metrics.message_sent("sucess")  # type: ignore[arg-type]
    metrics.message_sent(text)  # type: ignore[arg-type]
    metrics.message_sent(state="success")  # type: ignore[call-arg]
    metrics.message_sent(count="3")  # type: ignore[arg-type]
    metrics.messages_sent()  # type: ignore[attr-defined]
    metrics.messages_fetched()  # type: ignore[call-arg]
    metrics.messages_fetched(1.5)  # type: ignore[arg-type]
    metrics.user_registered("ada")  # type: ignore[call-arg]
    metrics.rate_limit_decided("denied")  # type: ignore[arg-type]
    metrics.notification_sent("no_receiver")  # type: ignore[arg-type]
    metrics.notification_received("message_received")  # type: ignore[arg-type]
    metrics.push_failed("quota")  # type: ignore[arg-type]
    metrics.websocket_outbound_dropped()  # type: ignore[call-arg]
    metrics.websocket_outbound_dropped("full")  # type: ignore[arg-type]
    metrics.health_checked("databse", ok=True)  # type: ignore[arg-type]
    metrics.health_checked("database", ok="yes")  # type: ignore[arg-type]
    metrics.http_request("GET", "/v1/messages", "200", 0.25)  # type: ignore[arg-type]
    metrics.attachment_uploaded("5 MB")  # type: ignore[arg-type]
    metrics.watch_db_pool(lambda: (1, 2, 0))  # type: ignore[arg-type, return-value]
    EventMetrics(generation="v0.9.5")  # type: ignore[arg-type]
    declared("server")  # type: ignore[arg-type]

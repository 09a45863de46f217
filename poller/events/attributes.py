"""Attributes of the events and their values, as Literal types and catalogue declarations."""

from __future__ import annotations

from typing import Literal, get_args

from poller.events._catalog.declaration import Attribute

MessageStatus = Literal["success", "failure"]
RateLimitDecision = Literal["allowed", "throttled"]
NotificationStatus = Literal["sent", "no_receivers", "error"]
NotificationEvent = Literal["MessageReceived", "Disconnect", "PreKeyLow"]
PushError = Literal["quota_exceeded", "other"]
DropReason = Literal["buffer_full", "channel_closed", "encode_failed"]
Component = Literal["database", "storage", "pubsub"]

OTHER = "_OTHER"
"""Replaces undeclared values (OpenTelemetry semantic conventions, `http.request.method`)."""
UNMATCHED = "unmatched"
"""Route of a request that matches no route of the server."""

HTTP_METHODS = (
    *("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"),
    OTHER,
)
"""Methods of RFC 9110 and RFC 5789, and QUERY (semantic conventions 1.44, `http.request.method`)."""

MESSAGE_STATUS = Attribute(
    "status",
    "Whether the message was stored; the server has not reported `failure` since v0.6.0.",
    get_args(MessageStatus),
)
RATE_LIMIT_DECISION = Attribute("status", "Decision of the rate limit.", get_args(RateLimitDecision))
NOTIFICATION_STATUS = Attribute(
    "status",
    "Result of the attempt; `no_receivers` up to v0.3.12, `error` from v0.3.13 on.",
    get_args(NotificationStatus),
)
NOTIFICATION_EVENT = Attribute("event", "Event in the notification.", get_args(NotificationEvent))
PUSH_ERROR = Attribute("reason", "Reason for the failure.", get_args(PushError))
DROP_REASON = Attribute(
    "reason",
    "Reason for the drop; `buffer_full` up to v0.6.2, `channel_closed` from v0.6.3, `encode_failed` from "
    "v0.9.0 on.",
    get_args(DropReason),
)
COMPONENT = Attribute("component", "Checked component; `pubsub` from v0.3.13 on.", get_args(Component))
HTTP_METHOD = Attribute("method", f"The request's method; `{OTHER}` for an unknown method.", HTTP_METHODS)
HTTP_ROUTE = Attribute(
    "route",
    f"Template of the matched route; `{UNMATCHED}` if no route matched.",
    open="the server defines the routes; only templates are exported, so that clients cannot create series",
    examples=("/v1/messages", "/v1/devices/{deviceId}", UNMATCHED),
)
HTTP_STATUS = Attribute(
    "status",
    "Status code of the response.",
    open="the server's status codes, 100 to 599",
    examples=("200", "404", "500"),
)

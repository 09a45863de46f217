"""API for recording the event half of the metric catalogue; requires only `opentelemetry-api`."""

from poller.events.attributes import (
    OTHER,
    UNMATCHED,
    Component,
    DropReason,
    MessageStatus,
    NotificationEvent,
    NotificationStatus,
    PushError,
    RateLimitDecision,
)
from poller.events.catalog import GenerationName, declared
from poller.events.metrics import EventMetrics, PoolState

__all__ = [
    "OTHER",
    "UNMATCHED",
    "Component",
    "DropReason",
    "EventMetrics",
    "GenerationName",
    "MessageStatus",
    "NotificationEvent",
    "NotificationStatus",
    "PoolState",
    "PushError",
    "RateLimitDecision",
    "declared",
]

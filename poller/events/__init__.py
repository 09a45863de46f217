"""API for recording the event half of the metric catalogue; requires only `opentelemetry-api`.

_asgi       Parts of the ASGI middleware.
_catalog    Parts of the event catalogue.
_export     Parts of the export of a server.
_logging    Parts of the log records of a server.
_privacy    Removal of personal data from the telemetry of a server.
asgi        ASGI middleware that traces and measures HTTP requests and WebSocket sessions.
attributes  Attributes of the events and their values, as Literal types and catalogue declarations.
catalog     Event half of the metric catalogue in both of its generations, under any namespace.
fixtures    Pytest fixture `event_recorder` (in conftest.py: `pytest_plugins = ["poller.events.fixtures"]`).
health      Periodic health checks of a server's components, and the endpoints `/livez` and `/readyz`.
libraries   Instrumentation of the database and storage libraries by OpenTelemetry's own packages.
logs        Log formatters and handler for stderr: one JSON or text line per record, with trace_id and
            span_id.
metrics     Metrics API of a messaging server: one typed method per event.
pools       Observer of the connection counts of database pools (psycopg, SQLAlchemy).
request     Context of the current request: root span, route, request id and user.
service     Decorator `traced`: a span for each call of a service method, and one log record per error.
telemetry   Configuration of a server's traces, metrics and logs from its environment.
testing     Event recorder for assertions in tests; requires `opentelemetry-sdk`.
websocket   Telemetry of a WebSocket session from handshake to close, with counts of dropped items.
"""

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

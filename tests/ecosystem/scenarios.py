"""Metrics for the producers to record: those of the catalogue, and deliberate mistakes in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from poller.events.catalog import declared

Metrics = dict[str, dict[str, Any]]
"""Each metric of a producer's file, by its name in the catalogue."""

RESOURCE = "service.name=messaging,user.name=ada"
"""Value of OTEL_RESOURCE_ATTRIBUTES with a personal attribute."""
ROUTES = 2_100
"""More than the 2,000 series of a metric that the SDKs allow by default."""


def catalogue() -> Metrics:
    """Return every event metric of the catalogue, with each declared value or example of its attributes."""
    return {
        metric.name: {
            "name": metric.name,
            "instrument": metric.instrument,
            "unit": metric.unit,
            "description": metric.description,
            "boundaries": list(metric.boundaries),
            "series": [
                _series(dict(zip((attribute.name for attribute in metric.attributes), values, strict=True)))
                for values in product(
                    *(attribute.values or attribute.examples for attribute in metric.attributes)
                )
            ],
        }
        for metric in declared("document").values()
    }


def with_mistakes() -> Metrics:
    """Return the catalogue with mistakes that the developer of a server can make."""
    metrics = catalogue()
    # The name: in the style of the language, of another release of the server, or never recorded.
    metrics["messaging_inbox_overflow_total"]["name"] = "messagingInboxOverflow"
    metrics["attachments_uploaded_bytes"]["name"] = "obscura_attachment_upload_bytes_total"
    metrics["websocket_ack_queue_dropped_total"]["series"] = []
    # The instrument.
    metrics["users_registered_total"]["instrument"] = "updowncounter"
    metrics["keys_prekey_low_events_total"]["instrument"] = "gauge"
    metrics["websocket_ack_batch_size"]["instrument"] = "counter"
    # The unit: none, or milliseconds with the SDK's own boundaries.
    metrics["db_pool_active_connections"]["unit"] = ""
    metrics["websocket_session_duration_seconds"] |= {"unit": "ms", "boundaries": []}
    # The value: the SDKs export some of these, and ignore others.
    metrics["health_status"]["series"] = [_series({"component": "database"}, "2")]
    metrics["db_pool_idle_connections"]["series"] = [_series({}, "NaN")]
    metrics["websocket_active_connections"]["series"] = [_series({}, "0.5")]
    metrics["keys_takeovers_total"]["series"] = [_series({}, "-1")]
    metrics["messaging_fetch_batch_size"]["series"] = [_series({}, "-1")]
    # The attributes: undeclared, missing or empty values, personal data, and ids in a path.
    metrics["messages_sent_total"]["series"] = [_series({"status": "ok"})]
    metrics["notification_sends_total"]["series"] = [_series({"status": True})]
    metrics["rate_limit_decisions_total"]["series"] = [_series({})]
    metrics["websocket_outbound_dropped_total"]["series"] = [
        _series({"reason": "buffer_full", "user.name": "ada"})
    ]
    metrics["http_request_duration_seconds"]["series"] = [
        _series({"route": None}),
        _series({"route": "/v1/users/ada@example.org"}),
    ]
    metrics["http_requests_total"]["series"] = [
        # A view of the Go producer drops `client.address`.
        _series({"method": "GET", "route": "/v1/users/4711", "status": 200, "client.address": "203.0.113.7"}),
    ]
    return metrics


def with_too_many_routes() -> Metrics:
    """Return the catalogue with more routes than the SDKs allow."""
    metrics = catalogue()
    letters = str.maketrans("0123456789", "abcdefghij")  # a path with digits would be a path with an id
    metrics["http_requests_total"]["series"] = [
        _series({"method": "GET", "route": f"/v1/{str(number).translate(letters)}", "status": 200})
        for number in range(ROUTES)
    ]
    return metrics


def write(metrics: Metrics, folder: Path) -> str:
    """Write the file of a producer and return its path."""
    path = folder / "metrics.json"
    path.write_text(json.dumps(list(metrics.values())), encoding="utf-8")
    return str(path)


def _series(attributes: Mapping[str, object], value: str = "1") -> dict[str, object]:
    """Return a series. Its value is a text, because JSON has no NaN."""
    return {"attributes": attributes, "value": value}

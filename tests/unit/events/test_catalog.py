"""The catalogue declares the metrics of design document 005 and of the server with identical names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

import pytest

from poller.events import attributes
from poller.events._catalog.declaration import Attribute, Instrument, Metric
from poller.events._catalog.events import EVENTS
from poller.events.catalog import GenerationName, declared, generation
from poller.model.prometheus import metric_name
from poller.model.units import unit_problem

# Tables 3.1, 3.2, 3.4 and the roadmap's phase 4, without gauges of the state: name, instrument, labels.
DOCUMENT: dict[str, tuple[Instrument, str]] = {
    "messages_sent_total": ("counter", "status"),
    "attachments_uploaded_bytes": ("counter", ""),
    "websocket_active_connections": ("updowncounter", ""),
    "users_registered_total": ("counter", ""),
    "keys_takeovers_total": ("counter", ""),
    "attachments_upload_size_bytes": ("histogram", ""),
    "messaging_fetch_batch_size": ("histogram", ""),
    "rate_limit_decisions_total": ("counter", "status"),
    "health_status": ("gauge", "component"),
    "db_pool_active_connections": ("gauge", ""),
    "websocket_outbound_dropped_total": ("counter", "reason"),
    "websocket_ack_queue_dropped_total": ("counter", ""),
    "websocket_ack_batch_size": ("histogram", ""),
    "keys_prekey_low_events_total": ("counter", ""),
    "messaging_inbox_overflow_total": ("counter", ""),
    "notification_sends_total": ("counter", "status"),
    "http_requests_total": ("counter", "method route status"),
    "http_request_duration_seconds": ("histogram", "route"),
    "websocket_session_duration_seconds": ("histogram", ""),
}

# Every instrument of the server at v0.9.4.
SERVER: dict[str, tuple[Instrument, str]] = {
    "obscura_messages_sent_total": ("counter", "status"),
    "obscura_message_fetch_batch_size": ("histogram", ""),
    "obscura_messages_overflow_total": ("counter", ""),
    "obscura_registrations_total": ("counter", ""),
    "obscura_logins_total": ("counter", ""),
    "obscura_token_refreshes_total": ("counter", ""),
    "obscura_logouts_total": ("counter", ""),
    "obscura_devices_created_total": ("counter", ""),
    "obscura_devices_deleted_total": ("counter", ""),
    "obscura_key_takeovers_total": ("counter", ""),
    "obscura_prekey_threshold_reached_total": ("counter", ""),
    "obscura_attachment_upload_bytes_total": ("counter", ""),
    "obscura_attachment_upload_size_bytes": ("histogram", ""),
    "obscura_attachments_deleted_total": ("counter", ""),
    "obscura_attachment_cleanup_errors_total": ("counter", ""),
    "obscura_backup_upload_bytes_total": ("counter", ""),
    "obscura_backup_upload_size_bytes": ("histogram", ""),
    "obscura_backup_cleanup_runs": ("counter", ""),
    "obscura_backup_cleanup_cleaned": ("counter", ""),
    "obscura_backup_cleanup_errors": ("counter", ""),
    "obscura_websocket_connections": ("updowncounter", ""),
    "obscura_websocket_outbound_dropped_total": ("counter", "reason"),
    "obscura_websocket_ack_dropped_total": ("counter", ""),
    "obscura_websocket_ack_batch_size": ("histogram", ""),
    "obscura_websocket_acks_received_total": ("counter", ""),
    "obscura_notifications_sent_total": ("counter", "status"),
    "obscura_notifications_received_total": ("counter", "event"),
    "obscura_notifications_unrouted_total": ("counter", "event"),
    "obscura_notification_channels": ("updowncounter", ""),
    "obscura_notification_channels_reclaimed_total": ("counter", ""),
    "obscura_notification_cleanup_duration_seconds": ("histogram", ""),
    "obscura_notification_worker_processed_total": ("counter", ""),
    "obscura_push_notifications_sent_total": ("counter", ""),
    "obscura_push_notification_errors_total": ("counter", "reason"),
    "obscura_push_invalid_tokens_total": ("counter", ""),
    "obscura_rate_limit_decisions_total": ("counter", "status"),
    "obscura_health_status": ("gauge", "component"),
}

# Prometheus' name of a counter without `_total`, with any unit.
LONGER_IN_PROMETHEUS = {
    "attachments_uploaded_bytes",
    "obscura_backup_cleanup_runs",
    "obscura_backup_cleanup_cleaned",
    "obscura_backup_cleanup_errors",
}

EVERY = [(name, metric) for name in get_args(GenerationName) for metric in declared(name).values()]


def kinds_of(metrics: Mapping[str, Metric]) -> dict[str, tuple[Instrument, str]]:
    return {
        metric.name: (metric.instrument, " ".join(attribute.name for attribute in metric.attributes))
        for metric in metrics.values()
    }


def test_the_document_is_declared_completely_and_additions_are_marked() -> None:
    metrics = declared("document")
    added = {metric.name for metric in metrics.values() if metric.status == "added"}

    assert {name: kind for name, kind in kinds_of(metrics).items() if name not in added} == DOCUMENT
    assert added == {"db_pool_idle_connections", "db_pool_waiting_requests"}
    assert len([metric for metric in metrics.values() if metric.status == "implemented"]) == 15


def test_the_servers_37_instruments_are_declared_exactly() -> None:
    implemented = {
        event: metric for event, metric in declared("v0.9.4").items() if metric.status == "implemented"
    }

    assert len(SERVER) == 37
    assert kinds_of(implemented) == SERVER


def test_every_event_has_a_name_in_some_generation_and_no_two_in_any() -> None:
    assert {event.name for event in EVENTS} == {metric.event for _, metric in EVERY}
    for name in get_args(GenerationName):
        names = generation(name).names
        assert len({name.event for name in names}) == len(names)
        assert len({name.metric for name in names}) == len(names)


def test_the_server_has_every_metric_of_the_document() -> None:
    assert declared("document").keys() < declared("v0.9.4").keys()


@pytest.mark.parametrize("metric", [metric for _, metric in EVERY], ids=lambda metric: metric.name)
def test_a_metric_is_declared_so_that_prometheus_keeps_its_name(metric: Metric) -> None:
    assert unit_problem(metric.unit) is None
    assert metric.description.endswith(".")
    assert (
        re.fullmatch(r"v\d+\.\d+\.\d+", metric.since) if metric.status == "implemented" else not metric.since
    )
    translated = metric_name(metric.name, metric.unit, metric.instrument)
    expected = f"{metric.name}_total" if metric.name in LONGER_IN_PROMETHEUS else metric.name
    assert translated == expected
    if metric.instrument == "histogram":
        assert list(metric.boundaries) == sorted(set(metric.boundaries))
        assert len(metric.boundaries) >= 5
    else:
        assert metric.boundaries == ()


def test_the_document_names_the_settings_that_its_metrics_tune() -> None:
    tuning = {metric.name: metric.tunes.partition(":")[0] for metric in declared().values() if metric.tunes}

    assert tuning == {
        "websocket_ack_batch_size": "WsConfig.ack_batch_size",
        "keys_prekey_low_events_total": "MessagingConfig.pre_key_refill_threshold",
        "messaging_inbox_overflow_total": "MessagingConfig.max_inbox_size",
    }


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("document", None, {"messages_sent_total", "http_requests_total"}),
        ("document", "acme", {"acme_messages_sent_total", "acme_http_requests_total"}),
        ("v0.9.4", None, {"obscura_messages_sent_total", "http_server_requests_total"}),
        ("v0.9.4", "", {"messages_sent_total", "http_server_requests_total"}),
        ("v0.9.4", "acme", {"acme_messages_sent_total", "acme_http_server_requests_total"}),
    ],
)
def test_the_namespace_is_the_prefix_of_every_name(
    name: GenerationName, namespace: str | None, expected: set[str]
) -> None:
    metrics = declared(name, namespace)
    assert {metrics["message_sent"].name, metrics["http_request"].name} == expected


def test_an_unknown_generation_is_reported_with_the_valid_ones() -> None:
    with pytest.raises(
        ValueError, match=r"'v1' is not a generation of the catalogue; write one of 'document', 'v0\.9\.4'"
    ):
        declared("v1")  # type: ignore[arg-type]


def test_an_attribute_has_declared_values_or_a_reason_to_be_open() -> None:
    with pytest.raises(ValueError, match="'x' needs either values or"):
        Attribute("x", "Nothing.")
    with pytest.raises(ValueError, match="'x' needs either values or"):
        Attribute("x", "Both.", ("a",), open="because")


def test_methods_are_those_of_http() -> None:
    assert attributes.HTTP_METHOD.values[-1] == "_OTHER"
    assert {"GET", "HEAD", "QUERY"} < set(attributes.HTTP_METHOD.values)

"""Samples in Prometheus' text format have the names that its OTLP receiver assigns."""

from __future__ import annotations

import pytest

from poller.events._catalog.declaration import Instrument
from poller.model.prometheus import exposition, metric_name
from poller.model.result import Sample
from tests.bed.definitions import a_metric

# From prometheus/otlptranslator, metric_namer_test.go, and the manual's "UTF-8 and OpenTelemetry" page.
NAMES = [
    ("users_total", "{user}", "users_total"),
    ("attachments_total_bytes", "By", "attachments_total_bytes"),
    ("attachments_total_count", "{attachment}", "attachments_total_count"),
    ("queue.size", "By", "queue_size_bytes"),
    ("queue.oldest", "s", "queue_oldest_seconds"),
    ("load", "1", "load_ratio"),
    ("used", "%", "used_percent"),
    ("rate", "{message}/s", "rate_per_second"),
    ("throughput", "By/s", "throughput_bytes_per_second"),
    ("speed", "m/min", "speed_meters_per_min"),
    ("a__b..c_", "", "a_b_c"),
    ("fresh.seconds.x", "s", "fresh_seconds_x"),
    ("odd", "{a}{b}", "odd"),
    ("1st", "", "_1st"),
]


@pytest.mark.parametrize(("name", "unit", "exposed_name"), NAMES)
def test_a_gauge_gets_the_name_of_its_unit(name: str, unit: str, exposed_name: str) -> None:
    assert metric_name(name, unit) == exposed_name


@pytest.mark.parametrize(
    ("name", "unit", "instrument", "exposed_name"),
    [
        ("messages_sent", "{message}", "counter", "messages_sent_total"),
        ("messages_total_sent", "", "counter", "messages_sent_total"),
        ("uploaded", "By", "counter", "uploaded_bytes_total"),
        ("tries", "1", "counter", "tries_total"),
        ("open_total", "1", "updowncounter", "open_total"),
        ("duration", "s", "histogram", "duration_seconds"),
        ("share", "1", "histogram", "share"),
    ],
)
def test_other_instruments_get_other_suffixes(
    name: str, unit: str, instrument: Instrument, exposed_name: str
) -> None:
    assert metric_name(name, unit, instrument) == exposed_name


def test_each_metric_has_a_block_with_help_type_and_every_series() -> None:
    metrics = {
        "waiting": a_metric("waiting", description="Messages\nwaiting \\ here."),
        "empty": a_metric("empty"),
        "size.now": a_metric("size.now", unit="By"),
        "sent": a_metric("sent", unit="By", type="counter"),
        "open": a_metric("open", unit="1", type="updowncounter"),
    }
    samples = [
        Sample("size.now", 2**63 - 1, {}),
        Sample("waiting", 3, {"tenant.id": 'a"b\\c\nd', "live": True}),
        Sample("waiting", 0.1, {"tenant.id": "ü", "shard": 7}),
        Sample("sent", 5, {}),
        Sample("open", -5, {}),
    ]
    assert exposition(metrics, samples) == (
        "# HELP waiting Messages\\nwaiting \\\\ here.\n"
        "# TYPE waiting gauge\n"
        'waiting{tenant_id="a\\"b\\\\c\\nd",live="true"} 3\n'
        'waiting{tenant_id="ü",shard="7"} 0.1\n'
        "# HELP size_now_bytes Things.\n"
        "# TYPE size_now_bytes gauge\n"
        "size_now_bytes 9223372036854775807\n"
        "# HELP sent_bytes_total Things.\n"
        "# TYPE sent_bytes_total counter\n"
        "sent_bytes_total 5\n"
        "# HELP open Things.\n"
        "# TYPE open gauge\n"
        "open -5\n"
    )


def test_no_results_are_an_empty_text() -> None:
    assert exposition({"empty": a_metric("empty")}, []) == ""

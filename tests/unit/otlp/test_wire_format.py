"""The wire format of the store: what a collector receives, compared with requests that were recorded.

`wire.json` contains the metrics that version 0.1.0 sent for these scenes, before it used the SDK.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.sdk.resources import Resource

from poller.model.result import PollResult, Sample
from poller.otlp.request import message
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.store import ResultStore
from tests.bed.definitions import a_metric, a_query, a_result

RECORDED = Path(__file__).with_name("wire.json")
RESOURCE = Resource({"service.name": "obscura-poller"})
FIRST_RECORDED_NS, RECORDED_INTERVAL_NS = 1_700_000_060_000_000_000, 60_000_000_000

USERS = a_metric("users_total", unit="{user}", description="Total registered users.")
BYTES = a_metric("stored.bytes", unit="By", description="Stored, in bytes.")
SENT = a_metric("sent", unit="{message}", description="Sent.", type="counter")
OPEN = a_metric("open", unit="{socket}", description="Open.", type="updowncounter")
A = a_query("a", metrics=(USERS,), interval=60, max_age=100, timeout=1)
B = a_query("b", metrics=(USERS, BYTES), interval=300)
C = a_query("c", metrics=(SENT, OPEN), interval=300)


QUERIES = (A, B, C)


def scenes() -> Iterator[tuple[list[PollResult], float]]:
    yield [a_result(A, Sample("users_total", 1, {}))], 0.0
    yield (
        [
            a_result(
                A,
                Sample("users_total", 2**63 - 1, {"kind": "int", "größe": "ä\n\t\"'\\"}),
                Sample("users_total", -(2**63), {"kind": "least"}),
                Sample("users_total", 2**53 + 1, {"kind": "beyond a double"}),
                Sample("users_total", 0.1, {"kind": "float"}),
                Sample("users_total", 5e-324, {"kind": "smallest"}),
                Sample("users_total", -1.7976931348623157e308, {"kind": "largest"}),
                Sample("users_total", 0, {"kind": "", "empty": ""}),
            ),
            a_result(B, Sample("users_total", 3, {"truth": True}), Sample("stored.bytes", 12.5, {"n": 3})),
            a_result(
                C, Sample("sent", 10, {"s": "x"}), Sample("sent", 2.5, {"s": "y"}), Sample("open", -4, {})
            ),
        ],
        1.0,
    )
    # A series that two queries report has no data point.
    yield (
        [
            a_result(A, Sample("users_total", 1, {"k": "both"}), Sample("users_total", 4, {"k": "a"})),
            a_result(
                B, Sample("users_total", 2, {"k": "both"}), Sample("users_total", 5, {"part": 0.5, "n": -7})
            ),
        ],
        2.0,
    )
    # A growing counter, a reset counter and a new counter.
    yield (
        [
            a_result(
                C,
                Sample("sent", 11, {"s": "x"}),
                Sample("sent", 1.5, {"s": "y"}),
                Sample("sent", 1, {"s": "z"}),
                Sample("open", 2, {}),
            )
        ],
        3.0,
    )
    # The values of `a` are too old; a counter that was absent starts again.
    yield [a_result(C, Sample("sent", 12, {"s": "y"}))], 150.0
    yield [a_result(C, Sample("sent", 13, {"s": "x"}), Sample("open", 1, {}))], 151.0
    yield [a_result(B)], 2000.0


def test_the_sdk_sends_the_recorded_requests() -> None:
    store, now = ResultStore(QUERIES), 0.0
    instruments = CatalogInstruments("1.2.3")
    metrics = [metric for query in QUERIES for metric in query.metrics]
    exports: list[list[Any]] = []
    for results, at in scenes():
        now = at
        store.put(results, now)
        frame = Frame(metrics, store.current(now))
        sent = MessageToDict(message([(RESOURCE, instruments.collect(frame))], "1.2.3"))
        exports.append(sent["resourceMetrics"][0]["scopeMetrics"][0].get("metrics", []))
    times = [metric_times(export) for export in exports]
    number = {time: at for at, of_export in enumerate(times) for time in of_export}
    assert [comparable(export, number) for export in exports] == [
        comparable(export, RecordedNumbers()) for export in json.loads(RECORDED.read_text(encoding="utf-8"))
    ]


class RecordedNumbers(dict[str, int]):
    """The number of the export of each recorded time."""

    def __missing__(self, time: str) -> int:
        return (int(time) - FIRST_RECORDED_NS) // RECORDED_INTERVAL_NS


def points_of(metric: Mapping[str, Any]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = (metric.get("gauge") or metric["sum"])["dataPoints"]
    return points


def metric_times(export: list[Any]) -> set[str]:
    times = {point["timeUnixNano"] for metric in export for point in points_of(metric)}
    assert len(times) <= 1, "the data points of a collection have the same time"
    return times


def comparable(export: list[Any], number: Mapping[str, int]) -> dict[str, Any]:
    """Return the metrics by name, sorted data points, and times as the number of their export."""
    for metric in export:
        for point in points_of(metric):
            for name in ("timeUnixNano", "startTimeUnixNano"):
                if name in point:
                    point[name] = number[point[name]]
        points_of(metric).sort(key=lambda point: json.dumps(point, sort_keys=True))
    return {metric["name"]: metric for metric in export}

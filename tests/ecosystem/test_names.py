"""Prometheus and VictoriaMetrics store metrics under the names that the generated files use."""

from __future__ import annotations

import itertools
import time
import urllib.request

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from poller.model.prometheus import label_name, metric_name
from tests.ecosystem.backends import Backend, Prometheus, VictoriaMetrics

NAMES = (
    "users_total", "store.size", "a.b-c/d", "queue.depth.total", "total.of.total", "size.bytes",
    "seconds.since", "ratio", "x.per.second", "Upper.Case", "double__underscore", "a" * 255,
)  # fmt: skip
UNITS = (
    "", "1", "By", "s", "ms", "{user}", "By/s", "{request}/s", "%", "Cel", "d", "{x}By", "km/h", "1/s",
    "m/min", "m[H2O]", "m[H2O]/s",
)  # fmt: skip
KINDS = ("gauge", "counter", "updowncounter")
CASES = tuple(itertools.product(NAMES, UNITS, KINDS))
ATTRIBUTES = ("state", "db.name", "a..b", "1st", "_private", "Upper-Case", "größe", "é", "x" * 200)


def request() -> bytes:
    """Return a request with a metric for each case, which has its number and ATTRIBUTES as attributes."""
    metrics = []
    for number, (name, unit, kind) in enumerate(CASES):
        point = NumberDataPoint(
            time_unix_nano=time.time_ns(),
            as_int=1,
            attributes=[
                KeyValue(key="number", value=AnyValue(string_value=str(number))),
                *(KeyValue(key=name, value=AnyValue(string_value=name)) for name in ATTRIBUTES),
            ],
        )
        metric = Metric(name=name, unit=unit)
        if kind == "gauge":
            metric.gauge.CopyFrom(Gauge(data_points=[point]))
        else:
            cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            added = Sum(
                data_points=[point], aggregation_temporality=cumulative, is_monotonic=kind == "counter"
            )
            metric.sum.CopyFrom(added)
        metrics.append(metric)
    resource = ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=metrics)])
    return ExportMetricsServiceRequest(resource_metrics=[resource]).SerializeToString()


def stored_series(backend: Backend) -> dict[tuple[str, str, str], dict[str, str]]:
    """Push all cases and return the name and the labels of each."""
    pushed = urllib.request.Request(
        f"{backend.otlp}/v1/metrics", request(), {"Content-Type": "application/x-protobuf"}
    )
    urllib.request.urlopen(pushed, timeout=60).close()

    def complete() -> dict[tuple[str, str, str], dict[str, str]]:
        series = backend.api("series", **{"match[]": '{number!=""}', "start": str(time.time() - 600)})
        stored = {CASES[int(labels.pop("number"))]: labels for labels in series}
        return stored if len(stored) == len(CASES) else {}

    return backend.wait_for(complete)


LABELS = {label_name(attribute): attribute for attribute in ATTRIBUTES}


def test_prometheus_stores_a_metric_under_the_expected_name_and_labels(prometheus: Prometheus) -> None:
    assert stored_series(prometheus) == {case: {"__name__": metric_name(*case), **LABELS} for case in CASES}


def may_differ_in_victoriametrics(name: str, unit: str, kind: str) -> bool:
    """Return whether VictoriaMetrics may translate the name otherwise than Prometheus.

    It appends `_ratio` to up-down counters as well, removes only the first of several `total`, compares the
    parts of `per_second` one by one, and leaves brackets unchanged.
    """
    return (
        (unit == "1" and kind == "updowncounter")
        or (kind == "counter" and name.count("total") > 1)
        or (unit.endswith("/s") and "per.second" in name)
        or "[" in unit
    )


def test_victoriametrics_stores_a_metric_under_the_expected_name_and_labels(
    victoriametrics: VictoriaMetrics,
) -> None:
    for case, labels in stored_series(victoriametrics).items():
        name = labels.pop("__name__")
        assert labels == LABELS
        assert name == metric_name(*case) or may_differ_in_victoriametrics(*case)

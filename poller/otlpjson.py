"""Say samples as OTLP/JSON, the form that the Collector's file receiver reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from poller.model import MetricDefinition, PollResult


def to_otlp_json(
    results: Iterable[PollResult], metrics: Mapping[str, MetricDefinition], resource: Resource, version: str
) -> str:
    """One ExportMetricsServiceRequest on one line; each point is stamped with the time of its snapshot.

    Source: OpenTelemetry protocol specification, "JSON Protobuf Encoding" (64-bit integers are strings).
    """
    points: dict[str, list[NumberDataPoint]] = {}
    for result in results:
        for sample in result.samples:
            point = NumberDataPoint(dict(sample.attributes), None, round(result.at * 1e9), sample.value)  # type: ignore[arg-type]  # a gauge has no start time
            points.setdefault(sample.metric, []).append(point)
    told = [
        Metric(name, metrics[name].description, metrics[name].unit, Gauge(members))
        for name, members in points.items()
    ]
    scope = ScopeMetrics(InstrumentationScope("poller", version), told, "")
    request = encode_metrics(MetricsData([ResourceMetrics(resource, [scope], "")]))
    return MessageToJson(request, indent=None)

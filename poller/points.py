"""Word what the store shows as OpenTelemetry gauges, point by point."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint

from poller.contest import contested, without
from poller.model import MetricDefinition, PollResult


def gauges(results: Iterable[PollResult], at: int | None = None) -> list[Metric]:
    """One gauge per metric, with the name, unit and description of its definition, and one point per sample.

    A series that two results claim has no point. Points are stamped `at` (nanoseconds since 1970), or with
    the time of each result's own snapshot.

    On the wire this is what an observable gauge is: attributes that are not observed now have no point
    (OpenTelemetry specification, metrics API, "Asynchronous Gauge"). The SDK's own (1.45) keeps every set of
    attributes that it ever saw, so that its memory grows for ever under labels that come and go; and it can
    neither take an instrument back nor give it another unit, as a changed query file wants it.
    """
    results = tuple(results)
    claims = contested(results)
    definitions: dict[str, MetricDefinition] = {}
    points: dict[str, list[NumberDataPoint]] = {}
    for result in (without(result, claims) for result in results):
        time = round(result.at * 1e9) if at is None else at
        for metric in result.query.metrics:
            definitions.setdefault(metric.name, metric)
        for sample in result.samples:
            point = NumberDataPoint(dict(sample.attributes), None, time, sample.value)  # type: ignore[arg-type]  # a gauge has no start time
            points.setdefault(sample.metric, []).append(point)
    return [
        Metric(name, definitions[name].description, definitions[name].unit, Gauge(members))
        for name, members in points.items()
    ]

"""Word what the store shows in OTLP, point by point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Metric,
    NumberDataPoint,
)

from poller.contest import contested, without
from poller.metric import AttributeValue, MetricDefinition
from poller.result import PollResult


def metrics(results: Iterable[PollResult], at: int | None = None, *, starts: bool = True) -> list[Metric]:
    """Each metric with the name, unit and description of its definition, and one point per sample.

    A series that two results claim has no point. Points are stamped `at` (nanoseconds since 1970), or with
    the time of each result's own snapshot. Sums are cumulative; their points have the start of their
    sequence, where one is known. Who polls once says no `starts`: each point would begin a sequence, and
    whoever computes a rate would never get one.

    On the wire this is what an observable instrument is: attributes that are not observed now have no point
    (OpenTelemetry specification, metrics API, "Asynchronous Gauge"). The SDK's own (1.45) keeps every set of
    attributes that it ever saw, so that its memory grows for ever under labels that come and go; it can
    neither take an instrument back nor give it another unit, as a changed query file wants it; and it takes
    its own start for a counter's.
    """
    results = tuple(results)
    claims = contested(results)
    told: dict[str, Metric] = {}
    adds: dict[str, Callable[..., NumberDataPoint]] = {}
    for result in (without(result, claims) for result in results):
        time = round(result.at * 1e9) if at is None else at
        definitions = {metric.name: metric for metric in result.query.metrics}
        for sample in result.samples:
            add = adds.get(sample.metric)
            if add is None:
                metric = told[sample.metric] = _metric(definitions[sample.metric])
                data = metric.sum if metric.HasField("sum") else metric.gauge
                add = adds[sample.metric] = data.data_points.add
            point = add(time_unix_nano=time)
            if starts and sample.sequence is not None:
                point.start_time_unix_nano = sample.sequence.begun(time)
            if isinstance(sample.value, int):
                point.as_int = sample.value
            else:
                point.as_double = sample.value
            _write(point.attributes, sample.attributes)
    return list(told.values())


def _metric(definition: MetricDefinition) -> Metric:
    metric = Metric(name=definition.name, description=definition.description, unit=definition.unit)
    if definition.type != "gauge":
        metric.sum.is_monotonic = definition.type == "counter"
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    return metric


def _write(pairs: Any, attributes: Mapping[str, AttributeValue]) -> None:
    for name, value in attributes.items():
        pair: KeyValue = pairs.add(key=name)
        if isinstance(value, str):
            pair.value.string_value = value
        elif isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.double_value = value

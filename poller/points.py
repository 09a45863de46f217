"""Word what the store shows in OTLP, point by point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from poller.contest import contested, without
from poller.datapoints import DataPoints, write_value
from poller.metric import AttributeValue, MetricDefinition
from poller.result import PollResult, Sample


class Points:
    """The metrics of what is shown, their data points kept from one time to the next.

    On the wire this is what an observable instrument is: attributes that are not observed now have no point
    (OpenTelemetry specification, metrics API, "Asynchronous Gauge"). The SDK's own (1.45) keeps every set of
    attributes that it ever saw, so that its memory grows for ever under labels that come and go; it can
    neither take an instrument back nor give it another unit, as a changed query file wants it; and it takes
    its own start for a counter's.
    """

    def __init__(self, *, starts: bool = True) -> None:
        """Who polls once says no `starts`: each point would begin a sequence, and whoever computes a rate
        would never get one."""
        self._starts = starts
        self._kept: dict[str, tuple[MetricDefinition, DataPoints[Mapping[str, AttributeValue]]]] = {}

    def metrics(self, results: Iterable[PollResult], at: int | None = None) -> list[Metric]:
        """Each metric with the name, unit and description of its definition, and one point per sample.

        A series that two results claim has no point. Points are stamped `at` (nanoseconds since 1970), or
        with the time of each result's own snapshot. Sums are cumulative; their points have the start of their
        sequence, where one is known. What is returned changes at the next call.
        """
        results = tuple(results)
        claims = contested(results)
        shown: dict[str, tuple[MetricDefinition, list[tuple[int, Sample]]]] = {}
        for result in (without(result, claims) for result in results):
            time = round(result.at * 1e9) if at is None else at
            definitions = {metric.name: metric for metric in result.query.metrics}
            for sample in result.samples:
                entry = shown.get(sample.metric)
                if entry is None:
                    entry = shown[sample.metric] = definitions[sample.metric], []
                entry[1].append((time, sample))
        for gone in self._kept.keys() - shown.keys():
            del self._kept[gone]
        return [self._metric(*entry) for entry in shown.values()]

    def _metric(self, definition: MetricDefinition, samples: list[tuple[int, Sample]]) -> Metric:
        kept = self._kept.get(definition.name)
        if kept is None or kept[0] is not definition:
            points = DataPoints(_metric(definition), _same)
            kept = self._kept[definition.name] = definition, points
        points = kept[1]
        for (time, sample), point in zip(
            samples, points.of([sample.attributes for _, sample in samples]), strict=True
        ):
            point.time_unix_nano = time
            if self._starts and sample.sequence is not None:
                point.start_time_unix_nano = sample.sequence.begun(time)
            write_value(point, sample.value)
        return points.metric


def _same(attributes: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue]:
    return attributes


def _metric(definition: MetricDefinition) -> Metric:
    metric = Metric(name=definition.name, description=definition.description, unit=definition.unit)
    if definition.type != "gauge":
        metric.sum.is_monotonic = definition.type == "counter"
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    return metric

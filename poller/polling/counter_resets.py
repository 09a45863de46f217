"""Counter resets: which sequence each sum continues; its start time is set at the first export."""

from __future__ import annotations

from dataclasses import replace

from poller.model.query import MetricType
from poller.model.result import PollResult, Sample, UnbrokenSequence
from poller.model.series import Key, key_of


def continued(result: PollResult, before: PollResult | None) -> PollResult:
    """Return `result` with the sequences of its sums, continued from `before`.

    `before` is the last good result of the same query. A new sequence begins if a counter is lower than
    before (it was reset), if `before` lacks the series (its history is unknown), or if another server
    answered (it has its own counters). The first export of a sequence sets its start time.
    """
    types = {metric.name: metric.type for metric in result.query.metrics if metric.type != "gauge"}
    if not types:
        return result
    goes_on = before is not None and before.server == result.server
    known = {_series(sample): sample for sample in before.samples} if before and goes_on else {}
    samples = (
        sample
        if sample.metric not in types
        else replace(sample, sequence=_sequence(sample, known.get(_series(sample)), types[sample.metric]))
        for sample in result.samples
    )
    return result._replace(samples=tuple(samples))


def _sequence(sample: Sample, before: Sample | None, kind: MetricType) -> UnbrokenSequence:
    if before is None or before.sequence is None or (kind == "counter" and sample.value < before.value):
        return UnbrokenSequence()
    return before.sequence


def _series(sample: Sample) -> tuple[str, Key]:
    return sample.metric, key_of(sample.attributes)

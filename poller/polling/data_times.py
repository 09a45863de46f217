"""Times of data points from a column: only the newest closed row of each series is exported, once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from poller.model.numbers import NotRepresentableError
from poller.model.query import MetricDefinition
from poller.model.result import DataTime, PollResult, Sample
from poller.model.rows import Row
from poller.model.series import Key, key_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LIMIT = 2**63
"""Nanoseconds since 1970 that OTLP can carry and Go can represent: the year 2262."""
_LATE = (
    "rows are older than the newest exported one of their series, and new or changed since the last poll; "
    "write a longer settle, or an interval that is not longer than the distance of the times"
)


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """Reader of a metric's time column; all times are in nanoseconds since 1970."""

    position: int
    settle: int
    now: int
    """Time of the snapshot."""

    @classmethod
    def of(cls, metric: MetricDefinition, position: int, now: float) -> TimeColumn:
        """Return the reader of `metric` for a snapshot of the time `now`, in seconds since 1970."""
        return cls(position, math.ceil((metric.settle or 0.0) * 1e9), round(now * 1e9))

    def read(self, row: Row) -> DataTime | None:
        """Return the time of `row`; None if it is not past by `settle`.

        Raises NotRepresentableError: `not_a_time` for NULL, infinity and times before 1970 or from 2262 on,
        `future` for later times than that of the snapshot.
        """
        at = _nanoseconds(row[self.position])
        if at > self.now:
            raise NotRepresentableError("future")
        return DataTime(at) if at + self.settle <= self.now else None


def _nanoseconds(raw: bytes | None) -> int:
    try:
        # DateStyle is ISO, so that the text is that of ISO 8601.
        time = datetime.fromisoformat((raw or b"").decode("ascii"))
        nanoseconds = (time - _EPOCH) // _MICROSECOND * 1000
    except (ValueError, TypeError, OverflowError):  # a time without a time zone is a TypeError
        raise NotRepresentableError("not_a_time") from None
    if not 0 < nanoseconds < _LIMIT:
        raise NotRepresentableError("not_a_time")
    return nanoseconds


def newest_of_each(samples: Iterable[Sample]) -> list[Sample]:
    """Return the newest sample of each series."""
    newest: dict[tuple[str, Key], Sample] = {}
    for sample in samples:
        series = _series(sample)
        if series not in newest or _at(sample) > _at(newest[series]):
            newest[series] = sample
    return list(newest.values())


def hashes(samples: Iterable[Sample]) -> frozenset[int]:
    """Return a hash of each data point with a time."""
    return frozenset(hash((*_series(sample), _at(sample), sample.value)) for sample in samples if sample.time)


def each_once(result: PollResult, before: PollResult | None) -> PollResult:
    """Return `result` with the data points that are due, after those of `before`.

    `before` is the last good result of the same query. A data point that was exported remains, with the
    value that was exported, until a newer one replaces it. Rows that are not exported because a newer one of
    their series was exported, or is exported now, count as `late` if `before` lacks them. If `before` was
    restored from an earlier process, its rows are unknown, and none counts.
    """
    if all(metric.time_column is None for metric in result.query.metrics):
        return result
    samples: list[Sample] = []
    newest = {} if before is None else dict(before.newest)
    known = {_series(sample): sample for sample in (before.samples if before else ()) if sample.time}
    accepted = late = 0
    for sample in result.samples:
        last = known.pop(_series(sample), None) if sample.time else None
        if sample.time is None:
            samples.append(sample)
        elif last is None:
            # The series may have been exported before, but not with a newer time than the newest of all.
            if before is None or _at(sample) > before.newest.get(sample.metric, 0):
                samples.append(sample)
                accepted += 1
        elif _at(sample) > _at(last) or (_is_corrected(sample, last) and not _is_sent(last)):
            samples.append(sample)
            accepted += 1
            late += _at(sample) > _at(last) and not _is_sent(last)
        else:
            samples.append(last)
    late += sum(not _is_sent(last) for last in known.values())
    for sample in samples:
        if sample.time:
            newest[sample.metric] = max(newest.get(sample.metric, 0), _at(sample))
    if before is not None and before.closed is not None and result.closed is not None:
        late += max(0, len(result.closed - before.closed) - accepted)
    return result._replace(
        samples=tuple(samples),
        newest=newest,
        rejected=dict(Counter(result.rejected) + Counter(late=late)),
        advice=result.advice or (_LATE if late else None),
    )


def note_collection(result: PollResult) -> None:
    """Note that the data points of `result` that were not exported are part of a collection."""
    for sample in result.samples:
        if sample.time is not None:
            sample.time.collected = not sample.time.exported


def confirm(result: PollResult) -> bool:
    """Note that the collected data points of `result` were handed over; return whether there were any."""
    times = [sample.time for sample in result.samples if sample.time is not None and sample.time.collected]
    for time in times:
        time.exported, time.collected = True, False
    return bool(times)


def _series(sample: Sample) -> tuple[str, Key]:
    return sample.metric, key_of(sample.attributes)


def _at(sample: Sample) -> int:
    return sample.time.at if sample.time else 0


def _is_sent(sample: Sample) -> bool:
    return sample.time is not None and (sample.time.exported or sample.time.collected)


def _is_corrected(sample: Sample, last: Sample) -> bool:
    return _at(sample) == _at(last) and sample.value != last.value

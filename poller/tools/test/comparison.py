"""Comparison of a query's result with the expectations of its test case, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from poller.model.query import AttributeValue
from poller.model.result import PollResult, Sample, state_of
from poller.model.text import value_text
from poller.polling.report import attributes_text, format_time, rejection_lines
from poller.tools.test.case import Expectation, parse_time
from poller.tools.test.case_file import LoadedCase

Mark = Literal["-", "+", " ", "#"]
"""`-`: expected but missing; `+`: not expected; space: as expected; `#`: explanation."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRECISION = 1e-9
"""Relative tolerance of values, so that a case may write 0.3333333333 for a third."""


@dataclass(frozen=True, slots=True)
class Line:
    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark} {self.text}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Result of one test case."""

    loaded_case: LoadedCase
    seconds: float
    lines: tuple[Line, ...] = ()
    """The difference; empty if there is none."""
    broken: str | None = None
    """Why the case could not run."""

    @property
    def state(self) -> Literal["ok", "failed", "broken"]:
        return "broken" if self.broken else "failed" if self.lines else "ok"


def compare(loaded_case: LoadedCase, result: PollResult, seconds: float) -> CaseResult:
    """Compare the result of the query with the expectations of the case; the run took `seconds`."""
    lines = [
        *_outcome(loaded_case, result),
        *_series(loaded_case, result),
        *_quarantined(loaded_case, result),
    ]
    if all(line.mark == " " for line in lines):
        return CaseResult(loaded_case, seconds)
    lines += [Line("#", text) for text in _explanations(result)]
    return CaseResult(loaded_case, seconds, tuple(lines))


def _outcome(loaded_case: LoadedCase, result: PollResult) -> Iterator[Line]:
    case = loaded_case.case
    expected = f"failed({case.fails})" if case.fails else f"skipped({case.skipped})" if case.skipped else "ok"
    actual = "ok" if result.outcome == "ok" else str(state_of(result))
    if actual != expected:
        yield Line("-", expected)
        yield Line("+", actual)


def _series(loaded_case: LoadedCase, result: PollResult) -> Iterator[Line]:
    expected = {
        _key(_metric(loaded_case, item), item.attributes): item for item in loaded_case.case.expect or ()
    }
    actual = {_key(sample.metric, sample.attributes): sample for sample in result.samples}
    for key, expectation in expected.items():
        sample = actual.get(key)
        expected_text = _series_text(
            _metric(loaded_case, expectation), expectation.attributes, expectation.value, expectation.time
        )
        if sample is None:
            yield Line("-", expected_text)
        elif _equal(expectation.value, sample.value) and _is_at(expectation.time, sample):
            yield Line(" ", _sample_text(sample))
        else:
            yield Line("-", expected_text)
            yield Line("+", _sample_text(sample))
    for key, sample in actual.items():
        if key not in expected:
            yield Line("+", _sample_text(sample))


def _quarantined(loaded_case: LoadedCase, result: PollResult) -> Iterator[Line]:
    expected = {str(reason): count for reason, count in loaded_case.case.quarantined.items() if count}
    actual = {reason: count for reason, count in result.rejected.items() if count}
    for reason in [*expected, *(reason for reason in actual if reason not in expected)]:
        expected_count, actual_count = expected.get(reason, 0), actual.get(reason, 0)
        if expected_count == actual_count:
            yield Line(" ", f"quarantined {reason}: {actual_count}")
        else:
            yield Line("-", f"quarantined {reason}: {expected_count}")
            yield Line("+", f"quarantined {reason}: {actual_count}")


def _explanations(result: PollResult) -> Iterator[str]:
    if result.error is not None:
        sqlstate = f"{result.error.sqlstate} " if result.error.sqlstate else ""
        yield f"{sqlstate}{result.error.message}"
        if result.error.hint:
            yield result.error.hint
    if result.skipped is not None:
        yield result.skipped.detail
    yield from rejection_lines(result)


def _metric(loaded_case: LoadedCase, expectation: Expectation) -> str:
    return expectation.metric or loaded_case.query.metrics[0].name


def _key(metric: str, attributes: Mapping[str, AttributeValue]) -> tuple[str, frozenset[tuple[str, str]]]:
    # Compare attributes as text, because columns return text and `tenant: 5` in YAML is a number.
    return metric, frozenset((name, value_text(value)) for name, value in attributes.items())


def _equal(expected: float | str, actual: float) -> bool:
    if isinstance(expected, str):
        return True
    if isinstance(expected, int) and isinstance(actual, int):
        return expected == actual
    return math.isclose(expected, actual, rel_tol=_PRECISION, abs_tol=0.0)


def _is_at(expected: str | None, sample: Sample) -> bool:
    if expected is None or (time := parse_time(expected)) is None:
        return True
    return sample.time is not None and sample.time.at == (time - _EPOCH) // timedelta(microseconds=1) * 1000


def _sample_text(sample: Sample) -> str:
    time = None if sample.time is None else format_time(sample.time.at / 1e9)
    return _series_text(sample.metric, sample.attributes, sample.value, time)


def _series_text(
    metric: str, attributes: Mapping[str, AttributeValue], value: object, time: str | None
) -> str:
    labels = attributes_text(attributes)
    return " ".join(filter(None, [metric, labels, str(value), f"at {time}" if time else ""]))

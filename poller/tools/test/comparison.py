"""Comparison of a query's result with what its test case expects, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from poller.model.query import AttributeValue
from poller.model.result import PollResult, state_of
from poller.polling.report import attributes_text, refusals
from poller.tools.test.case import Expectation
from poller.tools.test.case_file import Trial

Mark = Literal["-", "+", " ", "#"]
"""Expected and not so, so and not expected, both; and what explains it."""
_PRECISION = 1e-9
"""Of a double, so that a third may be written as 0.3333333333."""


@dataclass(frozen=True, slots=True)
class Line:
    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark} {self.text}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one case came to."""

    trial: Trial
    seconds: float
    lines: tuple[Line, ...] = ()
    """The difference; empty where there is none."""
    broken: str | None = None
    """Why it could not be tried at all."""

    @property
    def state(self) -> Literal["ok", "failed", "broken"]:
        return "broken" if self.broken else "failed" if self.lines else "ok"


def judge(trial: Trial, result: PollResult, seconds: float) -> Judgement:
    """Compare what came of the query with what the case expects; it took `seconds`."""
    lines = [*_ends(trial, result), *_series(trial, result), *_quarantined(trial, result)]
    if all(line.mark == " " for line in lines):
        return Judgement(trial, seconds)
    lines += [Line("#", told) for told in _explained(result)]
    return Judgement(trial, seconds, tuple(lines))


def _ends(trial: Trial, result: PollResult) -> Iterator[Line]:
    case = trial.case
    expected = f"failed({case.fails})" if case.fails else f"skipped({case.skipped})" if case.skipped else "ok"
    actual = "ok" if result.outcome == "ok" else str(state_of(result))
    if actual != expected:
        yield Line("-", expected)
        yield Line("+", actual)


def _series(trial: Trial, result: PollResult) -> Iterator[Line]:
    expected = {_key(_metric(trial, one), one.attributes): one for one in trial.case.expect or ()}
    actual = {_key(one.metric, one.attributes): one for one in result.samples}
    for key, one in expected.items():
        sample = actual.get(key)
        wanted = _told(_metric(trial, one), one.attributes, one.value)
        if sample is None:
            yield Line("-", wanted)
        elif _equal(one.value, sample.value):
            yield Line(" ", _told(sample.metric, sample.attributes, sample.value))
        else:
            yield Line("-", wanted)
            yield Line("+", _told(sample.metric, sample.attributes, sample.value))
    for key, sample in actual.items():
        if key not in expected:
            yield Line("+", _told(sample.metric, sample.attributes, sample.value))


def _quarantined(trial: Trial, result: PollResult) -> Iterator[Line]:
    expected = {str(reason): count for reason, count in trial.case.quarantined.items() if count}
    actual = {reason: count for reason, count in result.quarantined.items() if count}
    for reason in [*expected, *(reason for reason in actual if reason not in expected)]:
        wanted, got = expected.get(reason, 0), actual.get(reason, 0)
        if wanted == got:
            yield Line(" ", f"quarantined {reason}: {got}")
        else:
            yield Line("-", f"quarantined {reason}: {wanted}")
            yield Line("+", f"quarantined {reason}: {got}")


def _explained(result: PollResult) -> Iterator[str]:
    if result.error is not None:
        sqlstate = f"{result.error.sqlstate} " if result.error.sqlstate else ""
        yield f"{sqlstate}{result.error.message}"
        if result.error.hint:
            yield result.error.hint
    if result.skipped is not None:
        yield result.skipped.detail
    yield from refusals(result)


def _metric(trial: Trial, one: Expectation) -> str:
    return one.metric or trial.query.metrics[0].name


def _key(metric: str, attributes: Mapping[str, AttributeValue]) -> tuple[str, frozenset[tuple[str, str]]]:
    # As text, as a column gives it: `tenant: 5` in YAML is a number.
    return metric, frozenset((name, _text(value)) for name, value in attributes.items())


def _text(value: AttributeValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _equal(expected: float | str, actual: float) -> bool:
    if isinstance(expected, str):
        return True
    if isinstance(expected, int) and isinstance(actual, int):
        return expected == actual
    return math.isclose(expected, actual, rel_tol=_PRECISION, abs_tol=0.0)


def _told(metric: str, attributes: Mapping[str, AttributeValue], value: object) -> str:
    told = attributes_text({name: _text(one) for name, one in attributes.items()})
    return " ".join(filter(None, [metric, told, str(value)]))

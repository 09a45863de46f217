"""Event recorder for assertions in tests; requires `opentelemetry-sdk`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from poller.events._catalog.declaration import Metric
from poller.events.attributes import OTHER
from poller.events.catalog import GenerationName
from poller.events.metrics import EventMetrics


@dataclass(frozen=True, slots=True)
class Series:
    """Current state of one metric with one set of attributes."""

    metric: str
    attributes: Mapping[str, object]
    value: float
    """Value of the data point; for a histogram the sum of the recorded values."""
    count: int | None
    """Number of recorded values of a histogram; None for other instruments."""

    def __str__(self) -> str:
        labels = ",".join(f"{name}={value}" for name, value in sorted(self.attributes.items()))
        often = "" if self.count is None else f" in {self.count}"
        return f"{self.metric}{{{labels}}} {self.value:g}{often}"


class Recorder:
    """Event recorder for one test.

    Pass `recorder.metrics` to the tested code, or `recorder.meter_provider` if that code creates its own
    `EventMetrics`. A name or value that the catalogue does not declare raises LookupError, so that a misspelt
    assertion cannot pass.
    """

    def __init__(self, namespace: str | None = None, generation: GenerationName = "document") -> None:
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.metrics = EventMetrics(self.meter_provider, namespace, generation)
        self._declared = {metric.name: metric for metric in self.metrics.metrics.values()}

    def total(self, metric: str, **attributes: str) -> float:
        """Return the sum over all series that have `attributes`; 0 if there are none.

        For a histogram it is the sum of the recorded values.
        """
        return sum(series.value for series in self._matching(metric, attributes))

    def count(self, metric: str, **attributes: str) -> int:
        """Return the number of values in a histogram; raises LookupError for other instruments."""
        instrument = self._declaration(metric).instrument
        if instrument != "histogram":
            raise LookupError(f"{metric} is a {instrument}, not a histogram; use total instead")
        return sum(series.count or 0 for series in self._matching(metric, attributes))

    def value(self, metric: str, **attributes: str) -> float | None:
        """Return the value of the only series that has `attributes`; None if there is none.

        Raises LookupError if several series match.
        """
        matching = self._matching(metric, attributes)
        if len(matching) > 1:
            raise LookupError(f"{len(matching)} series match; write more attributes:\n{_lines(matching)}")
        return matching[0].value if matching else None

    def assert_total(self, metric: str, expected: float, **attributes: str) -> None:
        """Raise AssertionError, with a list of the recorded series, unless `total` equals `expected`."""
        total = self.total(metric, **attributes)
        assert total == expected, self._failure(metric, attributes, f"is {total:g} in total", expected)

    def assert_count(self, metric: str, expected: int, **attributes: str) -> None:
        """Raise AssertionError, with a list of the recorded series, unless `count` equals `expected`."""
        count = self.count(metric, **attributes)
        assert count == expected, self._failure(metric, attributes, f"was recorded {count} times", expected)

    def assert_value(self, metric: str, expected: float | None, **attributes: str) -> None:
        """Raise AssertionError, with a list of the recorded series, unless `value` equals `expected`."""
        value = self.value(metric, **attributes)
        assert value == expected, self._failure(metric, attributes, f"is {value}", expected)

    def assert_declared(self) -> None:
        """Raise AssertionError if a value was recorded that the catalogue does not declare."""
        undeclared = [
            series
            for series in self.series()
            if series.metric in self._declared
            for attribute in self._declared[series.metric].attributes
            if attribute.values
            and OTHER not in attribute.values
            and series.attributes[attribute.name] == OTHER
        ]
        assert not undeclared, f"undeclared values were recorded; see the log:\n{_lines(undeclared)}"

    def series(self) -> list[Series]:
        """Return all series, sorted; a series without recorded values is 0 or absent."""
        return sorted(self._series(), key=str)

    def close(self) -> None:
        """Shut down the meter provider."""
        self.meter_provider.shutdown()

    def _series(self) -> Iterator[Series]:
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        attributes = dict(point.attributes or {})
                        if isinstance(point, HistogramDataPoint):
                            yield Series(metric.name, attributes, point.sum, point.count)
                        elif isinstance(point, NumberDataPoint):
                            yield Series(metric.name, attributes, point.value, None)

    def _matching(self, metric: str, attributes: Mapping[str, str]) -> list[Series]:
        self._check(self._declaration(metric), attributes)
        return [
            series
            for series in self.series()
            if series.metric == metric and attributes.items() <= series.attributes.items()
        ]

    def _declaration(self, metric: str) -> Metric:
        if metric not in self._declared:
            raise LookupError(f"the catalogue has no metric {metric!r}{_suggestion(metric, self._declared)}")
        return self._declared[metric]

    def _check(self, metric: Metric, attributes: Mapping[str, str]) -> None:
        declared = {attribute.name: attribute for attribute in metric.attributes}
        for name, value in attributes.items():
            if name not in declared:
                raise LookupError(f"{metric.name} has no attribute {name!r}{_suggestion(name, declared)}")
            values = declared[name].values
            if values and value not in (*values, OTHER):
                raise LookupError(
                    f"{value!r} is not a value of {name} of {metric.name}{_suggestion(value, values)}"
                )

    def _failure(self, metric: str, attributes: Mapping[str, str], actual: str, expected: object) -> str:
        labels = ",".join(f"{name}={value}" for name, value in attributes.items())
        recorded = [
            series for series in self.series() if series.value or series.count or series.metric == metric
        ]
        return f"{metric}{{{labels}}} {actual}, not {expected}; recorded:\n{_lines(recorded)}"


def _lines(series: list[Series]) -> str:
    return "\n".join(f"  {item}" for item in series) or "  nothing"


def _suggestion(word: str, declared: Iterable[str]) -> str:
    words = list(declared)
    matches = difflib.get_close_matches(word, words, 1)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; write one of {', '.join(words)}" if words else "; there are none"

"""Comparison of data points with the metrics of the catalogue."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from poller.events._catalog.declaration import Attribute, Metric
from poller.events._privacy.attributes import is_denied
from poller.events.attributes import HTTP_ROUTE, HTTP_STATUS
from poller.model.diagnostics import Diagnostic
from poller.model.text import near, quote, value_text
from poller.receiver.decode import Distribution, Point, ReceivedValue
from poller.tools.conform.impossible_values import value_problems
from poller.tools.conform.notes import Differences, summary
from poller.tools.conform.personal_data import ADVICE, PersonalDataCheck, personal_data, safe_name

_ID = re.compile(r"/(?:\d+|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{24,})(?=/|$)", re.IGNORECASE)
"""Path segment that is a number, a UUID or a long hexadecimal text; a template has a name there."""
_OVERFLOW = "otel.metric.overflow"
"""The only attribute of the series for all measurements above an SDK's cardinality limit."""
_LIMIT = "limit the values of its attributes"
_STATUS = re.compile(r"[1-5]\d\d")
_LONGEST_VALUE = 2000
"""Number of characters of a value that are searched for ids."""
_MOST_SERIES = 100_000
"""Number of series whose last value is stored to detect counters that decrease."""

_KINDS = {
    "counter": "a monotonic sum",
    "updowncounter": "a non-monotonic sum",
    "histogram": "a histogram",
    "gauge": "a gauge",
}
_INSTRUMENTS = {"counter": "a counter", "updowncounter": "an up-down counter"}


class MetricCheck:
    """Check of data points against the catalogue."""

    def __init__(
        self, metrics: Iterable[Metric], *, units: bool, other_generations: Mapping[str, str]
    ) -> None:
        """Store the catalogue; without `units` a metric may have no unit.

        `other_generations` maps the metric names of these to them.
        """
        self._other_generations = other_generations
        self._metrics = {metric.name: metric for metric in metrics}
        self._units = units
        self._differences = Differences()
        self._personal_data = PersonalDataCheck(self._differences)
        self._received: set[str] = set()
        self._points = 0
        self._last: dict[tuple[str, bytes, bytes], tuple[int, int, float]] = {}

    def add(self, point: Point) -> None:
        """Check one data point."""
        self._points += 1
        self._personal_data.origin(point.resource, point.scope, point.scope_attributes)
        for exemplar in point.exemplars:
            self._personal_data.attributes(exemplar, f"an exemplar of {quote(point.metric)}")
        metric = self._metrics.get(point.metric)
        if metric is None:
            self._unknown(point)
            self._personal_data.attributes(point.attributes, f"metric {quote(point.metric)}")
            return
        self._received.add(metric.name)
        self._kind(point, metric)
        self._unit(point, metric)
        self._attributes(point, metric)
        self._buckets(point, metric)
        for message, example in value_problems(point, metric):
            self._differences.add("impossible_value", metric.name, message, example)
        self._temporality(point, metric)

    def differences(self, required: Iterable[Metric]) -> list[Diagnostic]:
        """Every difference: first the `required` metrics that were not received, then the others."""
        missing = [
            Diagnostic("error", "missing_metric", _missing(metric), subject=metric.name)
            for metric in required
            if metric.name not in self._received
        ]
        return [*missing, *self._differences.diagnostics()]

    def summary(self, wrong: int) -> Diagnostic:
        """Summary of all data points; `wrong` is the number of differences that count."""
        detail = f"{len(self._received)} of {len(self._metrics)} received in {self._points} data points"
        return summary("metrics", self._points, detail, wrong)

    def _unknown(self, point: Point) -> None:
        name = safe_name(point.metric)
        message, advice = f"{_kind(point)} that is not in the catalogue", None
        if other := self._other_generations.get(point.metric):
            message, advice = f"{message}; it is in generation {other}", f"use --generation {other}"
        elif not self._differences.has("unknown_metric", name, message):
            similar = near(point.metric, self._metrics)  # too slow for every data point
            advice = f"rename it to {similar!r} if you mean that metric" if similar else None
        self._differences.add("unknown_metric", name, message, advice=advice)

    def _kind(self, point: Point, metric: Metric) -> None:
        kind = _kind(point)
        if kind == _KINDS[metric.instrument]:
            return
        check = "wrong_type"
        if metric.instrument == "counter" and point.kind == "sum":
            check = "not_monotonic"
        self._differences.add(check, metric.name, f"is {kind}; the catalogue has {_expected(metric)}")

    def _unit(self, point: Point, metric: Metric) -> None:
        if point.unit == metric.unit or (not point.unit and not self._units):
            return
        actual = f"has the unit {point.unit!r}" if point.unit else "has no unit"
        expected = f"the catalogue has {metric.unit!r}" if metric.unit else "it must have none"
        self._differences.add("wrong_unit", metric.name, f"{actual}; {expected}")

    def _attributes(self, point: Point, metric: Metric) -> None:
        if point.attributes.get(_OVERFLOW) is True:
            message = "has more series than its SDK's limit; the SDK merges the others into one"
            self._differences.add("too_many_series", metric.name, message, advice=_LIMIT)
            return
        declared = {attribute.name: attribute for attribute in metric.attributes}
        for name, value in point.attributes.items():
            subject = f"{metric.name}{{{safe_name(name)}}}"
            if name not in declared:
                names = ", ".join(declared) or "none"
                message = f"is not declared; declared attributes: {names}"
                advice = ADVICE if is_denied(name) else None
                self._differences.add("undeclared_attribute", subject, message, advice=advice)
            else:
                self._value(subject, declared[name], _text(value))
        for name in declared.keys() - point.attributes.keys():
            self._differences.add("missing_attribute", f"{metric.name}{{{name}}}", "is missing")

    def _value(self, subject: str, attribute: Attribute, value: str) -> None:
        if attribute.values:
            if value not in attribute.values:
                message = f"is $, which is not declared; declared values: {', '.join(attribute.values)}"
                self._differences.add("undeclared_value", subject, message, _safe(value))
        elif personal := personal_data(value):
            self._differences.add("personal_text", subject, f"contains {personal}")
        elif attribute == HTTP_STATUS and not _STATUS.fullmatch(value):
            message = "is $, which is not a status code from 100 to 599"
            self._differences.add("impossible_value", subject, message, _safe(value))
        elif attribute == HTTP_ROUTE and _ID.search(value[:_LONGEST_VALUE]):
            message = "is $, a path with an id instead of a template, so each id creates a series"
            self._differences.add("undeclared_value", subject, message, _safe(value))
        elif not value:
            self._differences.add("missing_attribute", subject, "is empty")

    def _buckets(self, point: Point, metric: Metric) -> None:
        if point.kind != "histogram" or not isinstance(point.value, Distribution):
            return
        if metric.boundaries and point.value.bounds != tuple(map(float, metric.boundaries)):
            actual, expected = _bounds(point.value.bounds), _bounds(metric.boundaries)
            message = f"has the boundaries {actual}; recommended are {expected}"
            self._differences.add("boundaries", metric.name, message, severity="warning")

    def _temporality(self, point: Point, metric: Metric) -> None:
        """Check the temporality, and that cumulative counters and histograms do not decrease."""
        if point.temporality == "delta":
            message = "has delta temporality, which Prometheus rejects by default; send cumulative"
            self._differences.add("temporality", metric.name, message, severity="warning")
        if point.temporality is None and point.kind in ("sum", "histogram", "exponential_histogram"):
            message = "has no temporality, so totals and increments look the same; send cumulative"
            self._differences.add("temporality", metric.name, message)
        if metric.instrument not in ("counter", "histogram") or point.temporality != "cumulative":
            return
        value = point.value.count if isinstance(point.value, Distribution) else point.value
        if value is None or not point.recorded:
            return
        series = (metric.name, _key(point.attributes), _key(point.resource))
        start, at, last = self._last.get(series, (0, 0, 0.0))
        if point.time_unix_nano < at:
            return
        if start == point.start_time_unix_nano and value < last:
            self._differences.add(
                "not_monotonic", metric.name, "decreased from $ without a restart", f"{last:g} to {value:g}"
            )
        if series in self._last or len(self._last) < _MOST_SERIES:
            self._last[series] = (point.start_time_unix_nano, point.time_unix_nano, value)


def _kind(point: Point) -> str:
    if point.kind == "sum":
        return "a monotonic sum" if point.monotonic else "a non-monotonic sum"
    # Dashboards treat both kinds of histogram alike.
    return "a histogram" if point.kind == "exponential_histogram" else f"a {point.kind}"


def _instrument(metric: Metric) -> str:
    return _INSTRUMENTS.get(metric.instrument, f"a {metric.instrument}")


def _expected(metric: Metric) -> str:
    """The instrument, and its kind of data if the name of the instrument does not say it."""
    instrument, kind = _instrument(metric), _KINDS[metric.instrument]
    return instrument if instrument == kind else f"{instrument}, which is {kind}"


def _missing(metric: Metric) -> str:
    return f"was not sent; the catalogue has it as {_instrument(metric)}, from {metric.source}"


def _text(value: ReceivedValue) -> str:
    """The value as backends store it; empty if the sender set none."""
    if value is None:
        return ""
    return value_text(value)


def _safe(value: str) -> str:
    """The value for the report, or the kind of personal data that it contains."""
    kind = personal_data(value)
    return f"({kind})" if kind else quote(value)


def _bounds(boundaries: Iterable[float]) -> str:
    texts = [f"{bound:g}" for bound in boundaries]
    return ", ".join(texts) if len(texts) < 7 else f"{', '.join(texts[:3])} ... {texts[-1]}"


def _key(attributes: Mapping[str, ReceivedValue]) -> bytes:
    """Short key that is equal for equal attributes, because a sender may choose long attributes."""
    text = repr(sorted(attributes.items(), key=lambda pair: pair[0]))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()

"""Comparison of data points with the metrics of the catalogue."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from poller.events._catalog.declaration import Attribute as Declared
from poller.events._catalog.declaration import Metric
from poller.events.attributes import HTTP_ROUTE, HTTP_STATUS
from poller.model.text import did_you_mean, quote
from poller.receiver.decode import Attribute, Distribution, Point
from poller.tools.conform import impossible_values as impossible
from poller.tools.conform.notes import Notes, summary
from poller.tools.conform.personal_data import Places, gives_away, safe_name
from poller.tools.doctor.finding import Finding

_ID = re.compile(r"/(?:\d+|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{24,})(?=/|$)", re.IGNORECASE)
"""A part of a path that is a number, a UUID or a long hexadecimal word: in a template stands a name there."""
_STATUS = re.compile(r"[1-5]\d\d")
_LONGEST_VALUE = 2000
"""Characters of a value that are searched for ids."""
_MOST_SERIES = 100_000
"""Series whose last value is remembered, to see counters fall."""

_KINDS = {
    "counter": "a monotonic sum",
    "updowncounter": "a non-monotonic sum",
    "histogram": "a histogram",
    "gauge": "a gauge",
}
_SPOKEN = {"counter": "a counter", "updowncounter": "an up-down counter"}
_Series = tuple[str, bytes, bytes]


class Measured:
    """What the data points come to."""

    def __init__(self, metrics: Iterable[Metric], *, units: bool, elsewhere: Mapping[str, str]) -> None:
        """Know the catalogue; without `units` a metric may be sent without its unit.

        `elsewhere` names the generation of a name that is not in this one.
        """
        self._elsewhere = elsewhere
        self._metrics = {metric.name: metric for metric in metrics}
        self._units = units
        self._notes = Notes()
        self._places = Places(self._notes)
        self._seen: set[str] = set()
        self._points = 0
        self._last: dict[_Series, tuple[int, int, float]] = {}

    def take(self, point: Point) -> None:
        """Look at one data point."""
        self._points += 1
        self._places.origin(point.resource, point.scope, point.scope_attributes)
        for exemplar in point.exemplars:
            self._places.attributes(exemplar, f"an exemplar of {quote(point.metric)}")
        metric = self._metrics.get(point.metric)
        if metric is None:
            self._unknown(point)
            self._places.attributes(point.attributes, f"metric {quote(point.metric)}")
            return
        self._seen.add(metric.name)
        self._kind(point, metric)
        self._unit(point, metric)
        self._attributes(point, metric)
        self._buckets(point, metric)
        for what, example in impossible.flaws(point, metric):
            self._notes.add("impossible_value", metric.name, what, example)
        self._course(point, metric)

    def differences(self, required: Iterable[Metric]) -> list[Finding]:
        """What differs; of the `required` metrics those that were not seen first."""
        missing = [metric for metric in required if metric.name not in self._seen]
        return [
            *(Finding("missing_metric", "fail", _missing(metric), subject=metric.name) for metric in missing),
            *self._notes.findings(),
        ]

    def summary(self, wrong: int) -> Finding:
        """One line for all of it; `wrong` is how many differences count."""
        detail = f"{len(self._seen)} of {len(self._metrics)} seen in {self._points} data points"
        return summary("metrics", self._points, detail, wrong)

    def _unknown(self, point: Point) -> None:
        name = safe_name(point.metric)
        what, advice = f"{_kind(point)} that is not in the catalogue", None
        if other := self._elsewhere.get(point.metric):
            what, advice = f"{what}; in its generation {other} it is", f"say --generation {other}"
        elif not self._notes.has("unknown_metric", name):
            what += did_you_mean(point.metric, self._metrics)  # too slow for every data point
        self._notes.add("unknown_metric", name, what, advice=advice)

    def _kind(self, point: Point, metric: Metric) -> None:
        kind = _kind(point)
        if kind == _KINDS[metric.instrument]:
            return
        check = "wrong_type"
        if metric.instrument == "counter" and point.kind == "sum":
            check = "not_monotonic"
        what = f"is {kind}; the catalogue has {_spoken(metric)}, which is {_KINDS[metric.instrument]}"
        self._notes.add(check, metric.name, what)

    def _unit(self, point: Point, metric: Metric) -> None:
        if point.unit == metric.unit or (not point.unit and not self._units):
            return
        told = f"has the unit {point.unit!r}" if point.unit else "has no unit"
        what = f"{told}; the catalogue has {metric.unit!r}" if metric.unit else f"{told}; it should have none"
        self._notes.add("wrong_unit", metric.name, what)

    def _attributes(self, point: Point, metric: Metric) -> None:
        declared = {attribute.name: attribute for attribute in metric.attributes}
        for name, value in point.attributes.items():
            subject = f"{metric.name}{{{safe_name(name)}}}"
            if name not in declared:
                known = ", ".join(declared) or "none"
                self._notes.add("undeclared_attribute", subject, f"is not declared; declared are: {known}")
            else:
                self._value(subject, declared[name], str(value))
        for name in declared.keys() - point.attributes.keys():
            self._notes.add("missing_attribute", f"{metric.name}{{{name}}}", "is missing")

    def _value(self, subject: str, attribute: Declared, value: str) -> None:
        if attribute.values:
            if value not in attribute.values:
                what = f"is $, which is not declared; there are {', '.join(attribute.values)}"
                self._notes.add("undeclared_value", subject, what, _safe(value))
        elif personal := gives_away(value):
            self._notes.add("personal_text", subject, f"holds {personal}")
        elif attribute == HTTP_STATUS and not _STATUS.fullmatch(value):
            what = "is $, which is no status code from 100 to 599"
            self._notes.add("impossible_value", subject, what, _safe(value))
        elif attribute == HTTP_ROUTE and _ID.search(value[:_LONGEST_VALUE]):
            what = "is $, a path with an id and no template, so that every id makes a series"
            self._notes.add("undeclared_value", subject, what, _safe(value))

    def _buckets(self, point: Point, metric: Metric) -> None:
        if point.kind != "histogram" or not isinstance(point.value, Distribution):
            return
        if metric.boundaries and point.value.bounds != tuple(map(float, metric.boundaries)):
            what = (
                f"has the boundaries {_bounds(point.value.bounds)}; better are {_bounds(metric.boundaries)}"
            )
            self._notes.add("boundaries", metric.name, what, state="warn")

    def _course(self, point: Point, metric: Metric) -> None:
        """See that what only grows does."""
        if point.temporality == "delta":
            what = (
                "is told as delta, which Prometheus does not take unless it is told to; better is cumulative"
            )
            self._notes.add("temporality", metric.name, what, state="warn")
        if point.temporality is None and point.kind in ("sum", "histogram", "exponential_histogram"):
            what = "names no temporality, so that nobody can tell totals from steps; send cumulative"
            self._notes.add("temporality", metric.name, what)
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
            self._notes.add(
                "not_monotonic", metric.name, "fell from $ without a restart", f"{last:g} to {value:g}"
            )
        if series in self._last or len(self._last) < _MOST_SERIES:
            self._last[series] = (point.start_time_unix_nano, point.time_unix_nano, value)


def _kind(point: Point) -> str:
    if point.kind == "sum":
        return "a monotonic sum" if point.monotonic else "a non-monotonic sum"
    # To a dashboard the two are one.
    return "a histogram" if point.kind == "exponential_histogram" else f"a {point.kind}"


def _spoken(metric: Metric) -> str:
    return _SPOKEN.get(metric.instrument, f"a {metric.instrument}")


def _missing(metric: Metric) -> str:
    return f"was not sent; the catalogue has it as {_spoken(metric)}, from {metric.source}"


def _safe(value: str) -> str:
    """A value for the report, unless it gives somebody away."""
    what = gives_away(value)
    return f"({what})" if what else quote(value)


def _bounds(boundaries: Iterable[float]) -> str:
    told = [f"{bound:g}" for bound in boundaries]
    return ", ".join(told) if len(told) < 7 else f"{', '.join(told[:3])} ... {told[-1]}"


def _key(attributes: Mapping[str, Attribute]) -> bytes:
    """The same for equal attributes, and short: the sender chooses how long they are."""
    text = repr(sorted(attributes.items(), key=lambda pair: pair[0]))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()

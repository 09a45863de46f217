"""Validation across queries and files: duplicate names, conflicting metric definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from poller.config.queries.histogram import written_series
from poller.config.queries.query_file import QueryFile
from poller.model.diagnostics import Diagnostic
from poller.model.path import PathKey
from poller.model.prometheus import metric_name
from poller.model.query import MetricType
from poller.model.series import fixed_series
from poller.model.units import unit_problem


@dataclass(frozen=True, slots=True)
class _WrittenMetric:
    """A metric as written, whether or not its query is valid."""

    file: QueryFile
    path: tuple[PathKey, ...]
    data: dict[str, Any]

    @property
    def where(self) -> str:
        return self.file.where(self.path)


def find_conflicts(files: Sequence[QueryFile], namespace: str) -> Iterator[Diagnostic]:
    """Return every conflict in `files`; invalid queries are included, so that no mistake hides a conflict."""
    names: dict[str, str] = {}
    metrics: dict[str, _WrittenMetric] = {}
    translated: dict[str, tuple[str, str]] = {}
    for file in files:
        for at, query in file.queries():
            name = query.get("name")
            if isinstance(name, str) and name:
                here = file.where((*at, "name"))
                first = names.setdefault(name, here)
                if first is not here:
                    yield file.problem(
                        (*at, "name"), f"{name[:63]!r} is also the query at {first}; rename one"
                    )
            fed: dict[object, _WrittenMetric] = {}
            for metric in _metrics_of(file, at, query):
                yield from _find_metric_conflict(metric, metrics, fed)
                yield from _find_translated_conflict(metric, translated, namespace)


def _metrics_of(file: QueryFile, at: tuple[PathKey, ...], query: dict[str, Any]) -> Iterator[_WrittenMetric]:
    listed = query.get("metrics")
    for index, data in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(data, dict) and isinstance(data.get("name"), str) and data["name"]:
            for series in written_series(data):
                yield _WrittenMetric(file, (*at, "metrics", index), series)


def _find_metric_conflict(
    metric: _WrittenMetric, metrics: dict[str, _WrittenMetric], fed: dict[object, _WrittenMetric]
) -> Iterator[Diagnostic]:
    name = metric.data["name"]
    attributes = metric.data.get("attributes", {})
    if isinstance(attributes, dict):
        twin = fed.setdefault((name, fixed_series(attributes)), metric)
        if twin is not metric:
            message = f"{name[:255]!r} has the same attributes at {twin.where}; change the attributes of one"
            yield metric.file.problem((*metric.path, "name"), message)
    first = metrics.setdefault(name, metric)
    for key, default in (("type", "gauge"), ("unit", None), ("description", None)):
        mine, other = metric.data.get(key, default), first.data.get(key, default)
        if isinstance(mine, str) and isinstance(other, str) and mine != other:
            where = first.file.where((*first.path, key))
            message = f"differs from the {key} of {name[:255]!r} at {where}; write the same, or rename one"
            yield metric.file.problem((*metric.path, key), message)


def _find_translated_conflict(
    metric: _WrittenMetric, translated: dict[str, tuple[str, str]], namespace: str
) -> Iterator[Diagnostic]:
    name, unit = metric.data["name"], metric.data.get("unit")
    if not isinstance(unit, str) or unit_problem(unit):
        return
    full = f"{namespace}_{name}" if namespace else name
    if len(full) > 255 >= len(name):
        message = f"has {len(full)} characters with the namespace {namespace!r}; OpenTelemetry allows 255"
        yield metric.file.problem((*metric.path, "name"), message)
    translated_name = metric_name(full, unit, _type(metric))
    first, where = translated.setdefault(translated_name, (name, metric.where))
    if first != name and translated_name:
        message = (
            f"becomes {translated_name[:255]!r} in Prometheus, as {first[:255]!r} at {where} does; rename one"
        )
        yield metric.file.problem((*metric.path, "name"), message)


def _type(metric: _WrittenMetric) -> MetricType:
    return (
        cast(MetricType, declared)
        if (declared := metric.data.get("type")) in get_args(MetricType)
        else "gauge"
    )

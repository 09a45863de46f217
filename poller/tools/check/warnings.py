"""Warnings that require no database: shared series, distorted values, YAML values changed by parsing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poller.config.queries.query_file import QueryFile
from poller.model.diagnostics import Diagnostic
from poller.model.duration import parse_duration
from poller.model.path import PathKey
from poller.model.query import DEFAULT_INTERVAL
from poller.model.schedule import distances, parse_schedule
from poller.model.series import fixed_series
from poller.model.text import quote, value_text
from poller.tools.check.own_session import distortions
from poller.tools.check.time_columns import time_problems

_Series = dict[object, list[tuple[str, frozenset[str]]]]
"""File and line, and requirements, of the metrics with each series."""


def query_warnings(files: Sequence[QueryFile], interval: float = DEFAULT_INTERVAL) -> list[Diagnostic]:
    """Every warning about the valid `files`, in the order of files and lines.

    `interval` is that of queries without one, in seconds.
    """
    warnings: list[Diagnostic] = []
    series: _Series = {}
    for file in files:
        of_file = [*_same_series(file, series), *_distorted(file), *_times(file, interval)]
        warnings += sorted(of_file, key=lambda warning: warning.line)
    return warnings


def _warning(rule: str, file: QueryFile, path: tuple[PathKey, ...], name: str, message: str) -> Diagnostic:
    return Diagnostic("warning", rule, message, subject=name, place=file.place(path))


def _distorted(file: QueryFile) -> Iterator[Diagnostic]:
    """Statements that read the poller's own session, and attributes whose text the parser changes."""
    for at, query in file.queries():
        name = str(query.get("name"))
        for path, sql in _statements(query):
            for rule, message in distortions(sql, query.get("settings") or ()):
                yield _warning(rule, file, (*at, *path), name, message)
        for path in _attribute_values(query):
            written, value = file.written((*at, *path)), _at(query, path)
            if written is not None and not isinstance(value, str) and written != value_text(value):
                message = (
                    f"{written} becomes {value_text(value)}; write {quote(written)} in quotes to keep it"
                )
                yield _warning("attribute-text", file, (*at, *path), name, message)


def _times(file: QueryFile, default: float) -> Iterator[Diagnostic]:
    """Times of data points that a backend ignores or refuses."""
    for at, query in file.queries():
        if (schedule := query.get("schedule")) is None:
            interval = _seconds(query.get("interval", default))
        else:
            interval = distances(parse_schedule(str(schedule))).longest
        for number, metric in enumerate(query["metrics"]):
            if (column := metric.get("time_column")) is None:
                continue
            times = metric["name"], column, _seconds(metric["settle"]), interval
            for rule, message in time_problems(str(query["sql"]), *times):
                path = (*at, "metrics", number, "settle")
                yield _warning(rule, file, path, str(query["name"]), message)


def _seconds(duration: object) -> float:
    seconds = parse_duration(duration)
    return seconds if isinstance(seconds, float) else 0.0


def _same_series(file: QueryFile, series: _Series) -> Iterator[Diagnostic]:
    """Metrics of different queries with the same name and the same fixed attributes, and no other attributes.

    Two queries are alternatives if each has a requirement that the other lacks; only one of them runs.
    `series` has the metrics of the previous files, and gets those of `file`.
    """
    for at, query in file.queries():
        required = frozenset(_required(query.get("requires")))
        for number, metric in enumerate(query["metrics"]):
            if metric.get("attribute_columns"):
                continue
            path = (*at, "metrics", number, "name")
            others = series.setdefault((metric["name"], fixed_series(metric.get("attributes", {}))), [])
            for first, its_required in others:
                if required <= its_required or its_required <= required:
                    problem = f"{metric['name']!r} is also a series at {first}, so one of the two is wrong"
                    message = f"{problem}; write different attributes"
                    yield _warning("same-series", file, path, str(query["name"]), message)
                    break
            others.append((file.where(path), required))


def _required(requires: Any) -> Iterator[str]:
    """Each single requirement of a query."""
    for key, value in (requires or {}).items():
        if isinstance(value, Mapping):
            for name, columns in value.items():
                yield json.dumps([key, name])
                yield from (json.dumps([key, name, column]) for column in columns or ())
        elif isinstance(value, list):
            yield from (json.dumps([key, item]) for item in value)
        elif value not in (None, "any"):
            yield json.dumps([key, value])


def _statements(query: dict[str, Any]) -> Iterator[tuple[tuple[PathKey, ...], str]]:
    yield ("sql",), str(query["sql"])
    if isinstance(estimate := query.get("estimate"), dict):
        yield ("estimate", "sql"), str(estimate["sql"])


def _attribute_values(query: dict[str, Any]) -> Iterator[tuple[PathKey, ...]]:
    parameters = query.get("parameters") or {}
    if isinstance(parameters, dict):
        yield from (
            ("parameters", name, at) for name, values in parameters.items() for at in range(len(values))
        )
    else:
        yield from (("parameters", at, name) for at, values in enumerate(parameters) for name in values)
    for number, metric in enumerate(query["metrics"]):
        for name in metric.get("attributes") or {}:
            yield "metrics", number, "attributes", name
        for name, values in (metric.get("attribute_values") or {}).items():
            yield from (("metrics", number, "attribute_values", name, at) for at in range(len(values)))


def _at(data: Any, path: Sequence[PathKey]) -> Any:
    for step in path:
        data = data[step]
    return data

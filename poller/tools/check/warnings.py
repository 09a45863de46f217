"""Warnings that require no database: shared series, distorted values, YAML values changed by parsing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from poller.config.queries.query_file import QueryFile
from poller.model.diagnostics import Rule
from poller.model.path import Key
from poller.model.series import fixed_series
from poller.model.text import quote
from poller.tools.check.own_session import distortions


class Remark(NamedTuple):
    """One warning about a query."""

    rule: Rule
    file: QueryFile
    query: str
    path: tuple[Key, ...]
    """From the root of the file."""
    message: str


def remarks(files: Sequence[QueryFile]) -> list[Remark]:
    """Every warning about `files`, which are valid, in the order of files and lines."""
    found = [*_same_series(files)]
    for file in files:
        for at, query in file.queries():
            name = str(query.get("name"))
            for path, sql in _statements(query):
                found += [
                    Remark(cast(Rule, rule), file, name, (*at, *path), what)
                    for rule, what in distortions(sql)
                ]
            for path in _attribute_values(query):
                written, value = file.written((*at, *path)), _at(query, path)
                if written is not None and not isinstance(value, str) and written != _text(value):
                    what = f"{written} becomes {_text(value)}; write {quote(written)} in quotes to keep it"
                    found.append(Remark("attribute-text", file, name, (*at, *path), what))
    return sorted(found, key=lambda one: (one.file.number, one.file.line(one.path)))


def _same_series(files: Sequence[QueryFile]) -> Iterator[Remark]:
    """Metrics of different queries that have one name and the same fixed attributes, and no others.

    Queries that each require something that the other does not are alternatives, of which one runs.
    """
    fed: dict[object, list[tuple[QueryFile, tuple[Key, ...], frozenset[str]]]] = {}
    for file in files:
        for at, query in file.queries():
            required = frozenset(_required(query.get("requires")))
            for number, metric in enumerate(query["metrics"]):
                if metric.get("attribute_columns"):
                    continue
                path = (*at, "metrics", number, "name")
                twins = fed.setdefault((metric["name"], fixed_series(metric.get("attributes", {}))), [])
                for other, its_path, its_required in twins:
                    if required <= its_required or its_required <= required:
                        first = other.place(its_path)
                        what = f"{metric['name']!r} is the same series at {first}, so one of the two is wrong"
                        what = f"{what}; write other attributes to tell them apart"
                        yield Remark("same-series", file, str(query["name"]), path, what)
                        break
                twins.append((file, path, required))


def _required(requires: Any) -> Iterator[str]:
    """Each single thing that a query requires."""
    for key, value in (requires or {}).items():
        if isinstance(value, Mapping):
            for name, columns in value.items():
                yield json.dumps([key, name])
                yield from (json.dumps([key, name, column]) for column in columns or ())
        elif isinstance(value, list):
            yield from (json.dumps([key, item]) for item in value)
        elif value not in (None, "any"):
            yield json.dumps([key, value])


def _statements(query: dict[str, Any]) -> Iterator[tuple[tuple[Key, ...], str]]:
    yield ("sql",), str(query["sql"])
    if isinstance(estimate := query.get("estimate"), dict):
        yield ("estimate", "sql"), str(estimate["sql"])


def _attribute_values(query: dict[str, Any]) -> Iterator[tuple[Key, ...]]:
    for number, metric in enumerate(query["metrics"]):
        for name in metric.get("attributes") or {}:
            yield "metrics", number, "attributes", name
        for name, values in (metric.get("attribute_values") or {}).items():
            yield from (("metrics", number, "attribute_values", name, at) for at in range(len(values)))


def _at(data: Any, path: Sequence[Key]) -> Any:
    for step in path:
        data = data[step]
    return data


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

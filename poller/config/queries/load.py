"""Loader that reads query files and folders of them into one validated Catalog."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from poller.config.error_messages import sentences
from poller.config.queries.conflicts import find_conflicts
from poller.config.queries.files import resolve
from poller.config.queries.query_file import QueryFile
from poller.config.queries.schema.query import DeclaredQuery
from poller.config.settings import Settings
from poller.config.yaml_file import in_order
from poller.model.catalog import Catalog, Defaults
from poller.model.diagnostics import Diagnostic
from poller.model.duration import parse_duration
from poller.model.errors import ConfigError
from poller.model.query import LONGEST_INTERVAL, STALE_AFTER_INTERVALS, STALE_AFTER_RUNS, QueryDefinition
from poller.model.schedule import Distances, distances, parse_schedule


def open_catalog(settings: Settings) -> Catalog:
    """Load the query files that the settings name; raises ConfigError as `load` does."""
    return load(resolve(settings.queries), settings.defaults)


def load(sources: Sequence[Path], defaults: Defaults) -> Catalog:
    """Load every query of `sources`: files, and the *.yaml and *.yml files of folders, without subfolders.

    Raises ConfigError with every problem in every file, in the order of files and lines, each at
    `file:line: path.to.key`.
    """
    return build_catalog(open_files(sources), defaults)


def open_files(sources: Sequence[Path]) -> list[QueryFile]:
    """Return the parsed query files of `sources`, each once; an unusable source is an invalid one."""
    return QueryFile.open_all(sources)


def build_catalog(files: Sequence[QueryFile], defaults: Defaults) -> Catalog:
    """Return the catalogue of `files`; raises ConfigError with all their problems."""
    queries, problems = validate(files, defaults)
    if problems:
        raise ConfigError(in_order(problems, files))
    return Catalog(tuple(queries), tuple(file.path for file in files))


def validate(
    files: Sequence[QueryFile], defaults: Defaults
) -> tuple[list[QueryDefinition], list[Diagnostic]]:
    """Return the queries of `files` that are valid alone, and all problems in and between the queries."""
    problems: list[Diagnostic] = []
    queries: list[QueryDefinition] = []
    for file in files:
        problems += file.file_problems()
        for at, data in file.queries():
            try:
                # The context has the keys that the file contains, without defaults.
                declared = DeclaredQuery.model_validate(
                    _filled(data, file.defaults(), defaults), context=data
                )
            except ValidationError as error:
                problems += [
                    file.problem((*at, *path), message)
                    for path, message in sentences(error, DeclaredQuery, data)
                ]
            else:
                queries.append(_prefixed(declared.definition(), defaults.namespace))
    problems += find_conflicts(files, defaults.namespace)
    return queries, problems


def _filled(data: dict[str, Any], of_file: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the query's keys; missing ones come from the file or the defaults."""
    times = _distances(data.get("schedule"))
    if times is None:
        default = defaults.interval
        interval = _seconds(data.get("interval"), default)
        max_age = STALE_AFTER_INTERVALS * interval
    else:
        default = interval = min(times.shortest, LONGEST_INTERVAL)
        max_age = STALE_AFTER_RUNS * times.longest
    return {
        "interval": default,
        "timeout": min(defaults.timeout, interval),
        "max_age": max_age,
        "max_series": defaults.max_series,
        "max_cost": defaults.max_cost,
        **of_file,
        **data,
    }


def _distances(schedule: object) -> Distances | None:
    try:
        return distances(parse_schedule(schedule)) if isinstance(schedule, str) else None
    except ValueError:
        return None  # the key has its own error


def _seconds(value: object, default: float) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError:
        return default
    # An interval out of bounds has its own error and must not cause errors in the defaults.
    return seconds if isinstance(seconds, float) and seconds >= 1 else default


def _prefixed(query: QueryDefinition, namespace: str) -> QueryDefinition:
    if not namespace:
        return query
    metrics = tuple(
        dataclasses.replace(metric, name=f"{namespace}_{metric.name}") for metric in query.metrics
    )
    return dataclasses.replace(query, metrics=metrics)

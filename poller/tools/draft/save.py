"""Storage of new queries in a query file, with checks for names that are already in use."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poller.config.queries.files import files_of, named, resolve
from poller.config.queries.load import build_catalog, open_files
from poller.config.queries.query_file import QueryFile
from poller.config.yaml_reader import parse
from poller.model.catalog import Defaults
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.query import QueryDefinition
from poller.terminal.console import say, warn
from poller.tools.draft.append import append, conflicts, refuse
from poller.tools.draft.yaml_writer import to_file

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class DraftSettings:
    """The settings on which a new query depends."""

    queries: str
    """Files that the daemon reads, as in POLLER_QUERIES."""
    defaults: Defaults
    options: Mapping[str, Any]
    """Keys of the query that options of the command line set: interval, timeout and max_series."""


def declare(query: Mapping[str, Any], settings: DraftSettings) -> dict[str, Any]:
    """Return the query with the values of the command's options, without defaults; raises ConfigError."""
    if not query["name"].isascii():  # also rejects bytes of the command line that are not text
        message = f"{query['name']!a} is not a query name; write lower-case letters, digits, _, - and ."
        raise ConfigError([invalid("--name", message)])
    options = {key: value for key, value in settings.options.items() if key not in query}
    head = {key: value for key, value in query.items() if key != "metrics"}
    return {**head, **options, "metrics": query["metrics"]}


def define(queries: Sequence[Mapping[str, Any]], settings: DraftSettings) -> tuple[QueryDefinition, ...]:
    """Return the queries as parsed from a query file; raises ConfigError."""
    path = Path("the query")
    file = QueryFile(path, parse(to_file(*queries).encode(), path))
    return build_catalog([file], settings.defaults).queries


def refuse_conflicts(path: Path, queries: Sequence[Mapping[str, Any]], settings: DraftSettings) -> None:
    """Raise ConfigError if a query cannot be added to the file."""
    for query in queries:
        try:
            refuse(path, query, settings.defaults, _other_files(settings, path))
        except ConfigError as error:
            if len(queries) == 1:
                raise
            # --name applies to a single query.
            raise ConfigError(
                [
                    replace(problem, message=f"{problem.message}, with this aggregate alone")
                    if problem.where == "--name"
                    else problem
                    for problem in error.problems
                ]
            ) from None


def warn_of_conflicts(
    queries: Sequence[Mapping[str, Any]], settings: DraftSettings, console: Console
) -> None:
    """Print why the daemon would reject queries that the user is going to paste into a file."""
    for query in queries:
        for problem in conflicts(query, _other_files(settings), settings.defaults):
            warn(console, str(problem))


def names_in_use(settings: DraftSettings, path: Path | None) -> set[str]:
    """Return all names of queries and metrics in the daemon's files and in the folder of `path`."""
    queries = [query for file in _other_files(settings, path) for _, query in file.queries()]
    listed = [query["metrics"] for query in queries if isinstance(query.get("metrics"), list)]
    metrics = [metric for metrics in listed for metric in metrics if isinstance(metric, dict)]
    return {str(item.get("name")) for item in [*queries, *metrics]}


def append_all(
    path: Path, queries: Sequence[Mapping[str, Any]], settings: DraftSettings, console: Console
) -> None:
    """Append `queries` to the file and print the line of each; raises ConfigError."""
    for query in queries:
        line = append(path, query, settings.defaults, _other_files(settings, path))
        say(console, f"added to {path}:{line}", "green")
    if setting := _queries_setting(path, settings):
        message = f"the daemon does not read this file yet: export POLLER_QUERIES={shlex.quote(setting)}"
        say(console, message, "yellow")


def _queries_setting(path: Path, settings: DraftSettings) -> str | None:
    """Return a value of POLLER_QUERIES with which the daemon reads the file; None if it already does."""
    read = {os.path.realpath(file.path) for file in _other_files(settings)}
    if not read or os.path.realpath(path) in read:
        return None  # without any readable file the setting itself is wrong, which `check` reports
    # The daemon rejects a folder with YAML files that are not query files.
    files = open_files([path.parent])
    whole = not any(any(file.file_problems()) for file in files) and path in files_of(path.parent)
    text = str(path.parent if whole and path.parent != Path() else path)
    return f"{settings.queries}:{text if named(text) == Path(text) else Path(text).absolute()}"


def _other_files(settings: DraftSettings, path: Path | None = None) -> list[QueryFile]:
    """Return the files that the daemon reads, and those in the folder of `path`.

    `check` reads them together as well, and reports their problems.
    """
    try:
        sources = resolve(settings.queries)
    except ConfigError:
        sources = []
    return open_files([*sources, *([path.parent] if path is not None else [])])

"""Storage of new queries in a query file, with checks for names that are already in use."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poller.config.queries.files import files_of, named, resolve
from poller.config.queries.load import judged, opened
from poller.config.queries.query_file import QueryFile
from poller.config.queries.yaml_reader import parse
from poller.config.settings import Settings
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError, Problem
from poller.model.query import QueryDefinition
from poller.terminal.console import say
from poller.tools.draft.append import append, refuse, taken
from poller.tools.draft.yaml_writer import to_file

if TYPE_CHECKING:
    from rich.console import Console


def declared(query: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The query with what was asked for by an option; what is a default stays one. Raises ConfigError."""
    if not query["name"].isascii():  # nor is what the shell gave that is no text at all
        what = f"{query['name']!a} is not a query name; write lower-case letters, digits, _, - and ."
        raise ConfigError([Problem("--name", what)])
    asked: dict[str, Any] = {
        key: settings.text_of(key) for key in ("interval", "timeout") if settings.source(key).kind == "option"
    }
    if settings.source("max_series").kind == "option" and "max_series" not in query:
        asked["max_series"] = settings.max_series
    head = {key: value for key, value in query.items() if key != "metrics"}
    return {**head, **asked, "metrics": query["metrics"]}


def defined(queries: Sequence[Mapping[str, Any]], settings: Settings) -> tuple[QueryDefinition, ...]:
    """The queries as a file says them, read and judged as any other; raises ConfigError."""
    file = QueryFile(0, Path("the query"), parse(to_file(*queries).encode()))
    return judged([file], _defaults(settings)).queries


def refuse_taken(path: Path, queries: Sequence[Mapping[str, Any]], settings: Settings) -> None:
    """Raise ConfigError where a query could not be kept in the file, before anything is done for it."""
    for query in queries:
        try:
            refuse(path, query, _defaults(settings), _beside(settings, path))
        except ConfigError as error:
            if len(queries) == 1:
                raise
            # --name is of one query.
            raise ConfigError(
                [
                    replace(problem, message=f"{problem.message}, and ask for this aggregate alone")
                    if problem.where == "--name"
                    else problem
                    for problem in error.problems
                ]
            ) from None


def warn_taken(queries: Sequence[Mapping[str, Any]], settings: Settings, told: Console) -> None:
    """Say what the daemon would not take of queries that somebody is going to paste."""
    for query in queries:
        for problem in taken(query, _beside(settings), _defaults(settings)):
            say(told, f"look: {problem}", "yellow")


def names_in_use(settings: Settings, path: Path | None) -> set[str]:
    """Every name of a query or a metric that is read already, with the folder of `path`."""
    queries = [query for file in _beside(settings, path) for _, query in file.queries()]
    listed = [query["metrics"] for query in queries if isinstance(query.get("metrics"), list)]
    metrics = [metric for metrics in listed for metric in metrics if isinstance(metric, dict)]
    return {str(one.get("name")) for one in [*queries, *metrics]}


def keep(path: Path, queries: Sequence[Mapping[str, Any]], settings: Settings, told: Console) -> None:
    """Append each of `queries` to the file, and say where it stands; raises ConfigError."""
    for query in queries:
        line = append(path, query, _defaults(settings), _beside(settings, path))
        say(told, f"added to {path}:{line}", "green")
    if wanted := _to_be_read(path, settings):
        what = f"not read by the daemon yet: export POLLER_QUERIES={shlex.quote(wanted)}"
        say(told, what, "yellow")


def _to_be_read(path: Path, settings: Settings) -> str | None:
    """What POLLER_QUERIES has to be for the daemon to read the file; None where it does."""
    read = {os.path.realpath(file.path) for file in _beside(settings)}
    if not read or os.path.realpath(path) in read:
        return None  # where nothing is read, the setting itself is wrong, which is for `check` to say
    # A folder with anything else in it would be a mistake of the daemon's configuration.
    beside, wrong = opened([path.parent])
    whole = not wrong and path in files_of(path.parent) and not any(any(file.flaws()) for file in beside)
    word = str(path.parent if whole and path.parent != Path() else path)
    return f"{settings.text_of('queries')}:{word if named(word) == Path(word) else Path(word).absolute()}"


def _defaults(settings: Settings) -> Defaults:
    return Defaults(settings.interval, settings.timeout, settings.max_series, settings.namespace)


def _beside(settings: Settings, path: Path | None = None) -> list[QueryFile]:
    """The files that the daemon reads, and those in the folder of `path`, which `check` reads together.

    What is wrong with them is for `check` to say.
    """
    try:
        sources = resolve(settings.queries)
    except ConfigError:
        sources = []
    return opened([*sources, *([path.parent] if path is not None else [])])[0]

"""Keep new queries in a file, beside those that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poller.catalog import Defaults, judged, opened, resolve
from poller.drafts.append import append, refuse
from poller.drafts.write import to_file
from poller.errors import ConfigError, Problem
from poller.query import QueryDefinition
from poller.queryfile import QueryFile
from poller.settings import Settings
from poller.yamlfile import parse

if TYPE_CHECKING:
    from rich.console import Console


def declared(query: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The query with what was asked for by an option; what is a default stays one. Raises ConfigError."""
    if not query["name"].isascii():  # nor is what the shell gave that is no text at all
        what = f"{query['name']!a} is not a query name; write lower-case letters, digits, _, - and ."
        raise ConfigError([Problem("--name", what)])
    asked: dict[str, Any] = {
        key: settings.shown(key) for key in ("interval", "timeout") if settings.source(key).kind == "option"
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
        refuse(path, query, _defaults(settings), _beside(settings))


def keep(path: Path, queries: Sequence[Mapping[str, Any]], settings: Settings, told: Console) -> None:
    """Append each of `queries` to the file, and say where it stands; raises ConfigError."""
    for query in queries:
        line = append(path, query, _defaults(settings), _beside(settings))
        told.print(f"added to {path}:{line}", style="green", markup=False, soft_wrap=True)


def _defaults(settings: Settings) -> Defaults:
    return Defaults(settings.interval, settings.timeout, settings.max_series, settings.namespace)


def _beside(settings: Settings) -> list[QueryFile]:
    """The files that the daemon reads; what is wrong with them is for `check` to say."""
    try:
        return opened(resolve(settings.queries))[0]
    except ConfigError:
        return []

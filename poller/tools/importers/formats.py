"""Registry of the importable formats, and their detection."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from poller.config.yaml_reader import parse
from poller.model.catalog import Defaults
from poller.model.diagnostics import Diagnostic, Place, invalid
from poller.model.errors import ConfigError
from poller.model.files import read_regular
from poller.tools.importers.draft import DraftQuery
from poller.tools.importers.files import files_of
from poller.tools.importers.losses import Losses
from poller.tools.importers.targets import DraftTargets
from poller.tools.importers.validate import validate_drafts

_MAX_BYTES = 16 << 20
_TAGS = ("!include", "!file", "!env")
_ONLY_PG_EXPORTER = {
    "name", "desc", "predicate_queries", "tags", "ttl", "timeout", "priority", "min_version", "max_version",
    "fatal", "skip",
}  # fmt: skip
_ONLY_POSTGRES_EXPORTER = {"master", "cache_seconds", "runonserver"}


def tools_of(file: Path) -> set[str]:
    """Return the tools, by `--from` name, that `file` may belong to; empty if unreadable or unknown."""
    try:
        raw = read_regular(file, _MAX_BYTES)
        if file.suffix in (".toml", ".conf"):
            return set(_of_toml(tomllib.loads(raw.decode("utf-8-sig"))))
    except (OSError, ValueError, RecursionError):
        return set()
    data = parse(raw, file, _TAGS).data
    if isinstance(data, list):
        listed = any(
            {"conn_str", "preset_metrics", "custom_metrics"} & item.keys() for item in _mappings(data)
        )
        return {"pgwatch"} if listed else set()
    return set(_of_mapping(data)) if isinstance(data, dict) else set()


def _of_toml(data: dict[str, Any]) -> Iterator[str]:
    inputs = data.get("inputs", data)
    if isinstance(inputs, dict) and {"sql", "postgresql_extensible"} & inputs.keys():
        yield "telegraf"


def _of_mapping(data: dict[str, Any]) -> Iterator[str]:
    receivers, queries, metrics = (data.get(key) for key in ("receivers", "queries", "metrics"))
    if any(re.fullmatch(r"sqlquery(/.*)?", str(name)) for name in (*_names(receivers), *data)) or (
        "driver" in data and isinstance(queries, list)
    ):
        yield "sqlquery"
    if {"collector_name", "collector_files", "collectors"} & data.keys() or any(
        "queries" in job for job in _mappings(data.get("jobs"))
    ):
        yield "sql_exporter"
    if any("dsn" in database for database in _mappings(data.get("databases"))) or (
        isinstance(queries, dict) and any({"sql", "metrics"} <= query.keys() for query in _mappings(queries))
    ):
        yield "query-exporter"
    if isinstance(metrics, dict) and any("sqls" in metric for metric in _mappings(metrics)):
        yield "pgwatch"
    yield from _of_namespaces(data)


def _of_namespaces(data: dict[str, Any]) -> Iterator[str]:
    """Yield the exporters that `data` may belong to; both map names to queries, with a few different keys."""
    queries = [
        query for query in _mappings(data) if "query" in query and isinstance(query.get("metrics"), list)
    ]
    keys = {key for query in queries for key in query}
    if queries and not keys & _ONLY_POSTGRES_EXPORTER:
        yield "pg_exporter"
    if queries and not keys & _ONLY_PG_EXPORTER:
        yield "postgres_exporter"


def _names(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else []


def _mappings(value: Any) -> list[dict[str, Any]]:
    """Return the mappings directly below a mapping or a list."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in members if isinstance(item, dict)]


ImportFormat = Literal[
    "sqlquery", "sql_exporter", "query-exporter", "pg_exporter", "pgwatch", "postgres_exporter", "telegraf"
]

WITH_TARGETS: tuple[ImportFormat, ...] = ("sqlquery", "sql_exporter", "query-exporter", "pgwatch", "telegraf")
"""Tools whose files contain connections, which become targets."""
QueryReader = Callable[[Sequence[Path], Losses], list[DraftQuery]]
TargetReader = Callable[[Sequence[Path], Losses, DraftTargets | None], list[DraftQuery]]


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import: the valid queries, the targets if there are any, and the losses."""

    drafts: Sequence[DraftQuery]
    losses: Losses
    files: Sequence[Path]
    targets: DraftTargets | None = None


def import_files(
    form: ImportFormat, paths: Sequence[Path], defaults: Defaults, *, with_targets: bool = False
) -> Imported:
    """Read `paths` (files or folders) in the format `form`, and on request their connections as targets.

    Raises ConfigError with every file that cannot be read or that looks like another tool's file.
    """
    suffixes = (".toml", ".conf") if form == "telegraf" else (".yaml", ".yml")
    losses, problems = Losses(), list[Diagnostic]()
    files: list[Path] = []
    for path in paths:
        try:
            files += [file for file in files_of(path, suffixes) if file not in files]
        except ConfigError as error:
            problems += error.problems
    mismatches = {file: tools for file in files if (tools := tools_of(file)) and form not in tools}
    for file, tools in mismatches.items():
        options = " or ".join(f"--from {tool}" for tool in sorted(tools))
        message = f"looks like {' or '.join(sorted(tools))}, not like {form}; write {options}"
        problems.append(invalid(str(file), message))
    drafts: list[DraftQuery] = []
    read = importlib.import_module(f"poller.tools.importers.{form.replace('-', '_')}").read
    matching = [file for file in files if file not in mismatches]
    targets = DraftTargets() if with_targets else None
    try:
        if form in WITH_TARGETS:
            drafts = cast(TargetReader, read)(matching, losses, targets)
        else:
            drafts = cast(QueryReader, read)(matching, losses)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    if not drafts and not losses.counts[0] and not (targets and targets.targets):
        for file in files:
            losses.add_loss(
                Place(file, 1), f"contains no {form} query", "name another file, or another --from"
            )
    valid = validate_drafts(drafts, defaults, losses)
    if targets is not None:
        targets.finish(valid, losses)
        if not targets.targets and files:
            message = f"contains no connection of {form} to PostgreSQL"
            losses.add_loss(Place(files[0], 1), message, "pass the file that contains them as well")
    return Imported(valid, losses, files, targets)


FORMATS: tuple[ImportFormat, ...] = get_args(ImportFormat)

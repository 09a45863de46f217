"""Read folders of YAML into one validated Catalog."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from poller.clashes import clashes
from poller.complaints import sentences
from poller.definition import parse_duration
from poller.errors import ConfigError, Place, Problem
from poller.metric import MetricDefinition
from poller.query import STALE_AFTER_INTERVALS, QueryDefinition
from poller.queryfile import Found, QueryFile, read, unreadable
from poller.words import did_you_mean, near, shown

_SUFFIXES = (".yaml", ".yml")
_MOST_NAMES = 1000
"""Looked at for one that was meant."""
_CASES = ".test"
"""What the name of a file ends in, before its suffix, that holds cases for `poller test` and no query."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a query gets where it declares nothing; durations in seconds."""

    interval: float
    timeout: float
    max_series: int
    namespace: str = ""
    """Put before the name of every metric, with an underscore."""


@dataclass(frozen=True)
class Catalog:
    """Every query of every file, valid each and together; queries in the order of the files."""

    queries: tuple[QueryDefinition, ...]
    files: tuple[Path, ...]

    @cached_property
    def metrics(self) -> dict[str, MetricDefinition]:
        """One definition for each metric by its exported name; several queries may feed it."""
        found: dict[str, MetricDefinition] = {}
        for query in self.queries:
            for metric in query.metrics:
                found.setdefault(metric.name, metric)
        return found

    def select(self, patterns: Sequence[str]) -> tuple[QueryDefinition, ...]:
        """The queries whose name matches any of `patterns` (`*`, `?` and `[...]`), in the catalogue's order.

        Raises ConfigError for every pattern that matches nothing.
        """
        names = [query.name for query in self.queries]
        problems = [
            Problem("--query", f"{shown(pattern)} matches no query{_hint(pattern, names)}")
            for pattern in patterns
            if not any(fnmatchcase(name, pattern) for name in names)
        ]
        if problems:
            raise ConfigError(problems)
        return tuple(query for query in self.queries if any(fnmatchcase(query.name, one) for one in patterns))


def resolve(queries_setting: str) -> list[Path]:
    """The files and folders that `POLLER_QUERIES` names: joined by `:`.

    `shipped` and `extended` are the folders that come with the poller.

    Raises ConfigError for each that is missing or holds no query file.
    """
    words = [word.strip() for word in queries_setting.split(":") if word.strip()]
    problems: list[Problem] = []
    sources: list[Path] = []
    for word in words:
        source = named(word)
        if what := _source_problem(source):
            meant = did_you_mean(word, ["shipped", "extended"])
            problems.append(Problem("POLLER_QUERIES", f"{word!r} {what}{meant}"))
        sources.append(source)
    if not words:
        problems.append(
            Problem("POLLER_QUERIES", "names nothing; write files and folders joined by ':', or shipped")
        )
    if problems:
        raise ConfigError(problems)
    return sources


def named(word: str) -> Path:
    """The file or folder called `word`: `shipped` and `extended` are those that come with the poller."""
    return {"shipped": _packaged(), "extended": _packaged() / "extended"}.get(word, Path(word))


def load(sources: Sequence[Path], defaults: Defaults) -> Catalog:
    """Read every query of `sources`: files, and the *.yaml and *.yml of folders (not of folders in them).

    Raises ConfigError with every problem of every file, in the order of files and lines, each at
    `file:line: path.to.key`.
    """
    files, found = opened(sources)
    return judged(files, defaults, found)


def opened(sources: Sequence[Path]) -> tuple[list[QueryFile], list[Found]]:
    """The query files of `sources`, each once, as they stand; and what is wrong with the sources."""
    found: list[Found] = []
    files: list[QueryFile] = []
    seen: set[str] = set()
    for source in sources:
        if what := _source_problem(source):
            found.append(Found((len(files), 0), Problem(str(source), what, Place(str(source)))))
            continue
        for path in files_of(source):
            real = os.path.realpath(path)
            if real not in seen:  # `shipped:queries` is no reason to call every name a duplicate
                seen.add(real)
                files.append(QueryFile(len(files), path, read(path)))
    return files, found


def judged(files: Sequence[QueryFile], defaults: Defaults, found: Sequence[Found] = ()) -> Catalog:
    """Make a catalogue of `files`; raises ConfigError with every problem of them, and with those `found`."""
    queries, wrong = validated(files, defaults)
    if found := [*found, *wrong]:
        raise ConfigError([one.problem for one in sorted(found, key=lambda one: one.order)])
    return Catalog(tuple(queries), tuple(file.path for file in files))


def validated(files: Sequence[QueryFile], defaults: Defaults) -> tuple[list[QueryDefinition], list[Found]]:
    """Every query of `files` that is valid alone, and all that is wrong with any of them or between them."""
    found: list[Found] = []
    queries: list[QueryDefinition] = []
    for file in files:
        found += file.flaws()
        for at, data in file.queries():
            try:
                query = QueryDefinition.model_validate(_filled(data, file.defaults(), defaults))
            except ValidationError as error:
                found += [
                    file.found((*at, *path), what) for path, what in sentences(error, QueryDefinition, data)
                ]
            else:
                queries.append(_prefixed(query, defaults.namespace))
    found += clashes(files, defaults.namespace)
    return queries, found


def files_of(source: Path) -> list[Path]:
    """The query files of `source`, a file or a folder; raises OSError where the folder cannot be listed."""
    if not source.is_dir():
        return [source]
    return sorted(
        path
        for path in source.iterdir()
        if path.suffix in _SUFFIXES
        and not path.name.startswith(".")
        and not holds_cases(path)
        and not path.is_dir()
    )


def holds_cases(path: Path) -> bool:
    """Whether `path` is named as the cases of a query file are: `messages.test.yaml` for `messages.yaml`."""
    return path.suffix in _SUFFIXES and path.stem.endswith(_CASES)


def _packaged() -> Path:
    # Installed, the folder lies inside the package; in a checkout beside it.
    package = Path(__file__).parent
    inside = package / "queries"
    return inside if inside.is_dir() else package.parent / "queries"


def _source_problem(source: Path) -> str | None:
    try:
        if not source.exists():
            return f"does not exist{_like(source) or '; write a folder of query files, or a file'}"
        if holds_cases(source) and not source.is_dir():
            return "holds cases for `poller test`; write the query file, or its folder"
        if source.is_dir() and not files_of(source):
            return "holds no query file; put a *.yaml file into it, or write another folder"
    except (OSError, ValueError) as error:
        return unreadable(error)
    return None


def _like(source: Path) -> str:
    """`; did you mean ...` with what is there under a name like it."""
    if not source.parent.is_dir():
        return ""
    beside = itertools.islice(source.parent.iterdir(), _MOST_NAMES)
    # Without the suffixes, which make all of them alike.
    names = {path.stem: path.name for path in beside}
    meant = near(source.stem, names)
    return f"; did you mean {str(source.with_name(names[meant]))!r}?" if meant else ""


def _filled(data: dict[str, Any], of_file: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """What a query declares, over what its file does, over the defaults."""
    interval = _seconds(data.get("interval"), defaults.interval)
    return {
        "interval": defaults.interval,
        "timeout": min(defaults.timeout, interval),
        "max_age": STALE_AFTER_INTERVALS * interval,
        "max_series": defaults.max_series,
        **of_file,
        **data,
    }


def _seconds(value: object, default: float) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError:
        return default
    # What is out of bounds is told at its own key and shall not make the defaults look wrong as well.
    return seconds if isinstance(seconds, float) and seconds >= 1 else default


def _prefixed(query: QueryDefinition, namespace: str) -> QueryDefinition:
    if not namespace:
        return query
    metrics = tuple(
        metric.model_copy(update={"name": f"{namespace}_{metric.name}"}) for metric in query.metrics
    )
    return query.model_copy(update={"metrics": metrics})


def _hint(pattern: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{did_you_mean(pattern, names) or ';'} there are: {', '.join(sorted(names)[:20])}{more}"

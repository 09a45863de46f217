"""Discovery of test cases next to the query files that they test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from poller.config.queries.files import files_of, holds_cases, unreadable
from poller.config.queries.load import load
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError, Problem
from poller.model.query import QueryDefinition
from poller.model.text import did_you_mean, quote
from poller.tools.test.case_file import Reading, Trial

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Collected:
    """The cases that were asked for, in the order of the files, and the queries that have none."""

    trials: tuple[Trial, ...]
    untried: tuple[str, ...]


def collect(sources: Sequence[Path], defaults: Defaults) -> Collected:
    """Read the cases of `sources`: query files, files of cases, and folders of both.

    Raises ConfigError with every problem of every file; a file of cases is looked at once the query file
    beside it is right.
    """
    problems: list[Problem] = []
    queries: dict[Path, tuple[QueryDefinition, ...] | None] = {}
    files: list[Path] = []
    for source in sources:
        try:
            asked, found = _files(source)
        except (OSError, ValueError) as error:
            what = str(error) if type(error) is ValueError else unreadable(error)
            problems.append(Problem(str(source), what))
            continue
        queries |= dict.fromkeys(asked)
        files += [file for file in found if file not in files]
    for path in queries:
        try:
            queries[path] = load([path], defaults).queries
        except ConfigError as error:
            problems += error.problems
    trials: list[Trial] = []
    for number, path in enumerate(files):
        if (listed := queries[_tested(path)]) is not None:
            reading = Reading(number, path, listed)
            trials += reading.trials()
            problems += _told(reading)
    if not files and not problems:
        example = _beside(next(iter(queries)), ".test")
        problems.append(Problem("poller test", f"finds no cases; write some into {example}"))
    if problems:
        raise ConfigError(problems)
    tried = {trial.query.name for trial in trials}
    every = [query.name for listed in queries.values() for query in listed or ()]
    return Collected(tuple(trials), tuple(name for name in every if name not in tried))


def refuse_mistaken(files: Sequence[Path], defaults: Defaults) -> None:
    """Raise ConfigError with every problem of the cases beside the query files `files`, which are right."""
    problems: list[Problem] = []
    for file in files:
        for number, path in enumerate(_cases_of(file)):
            reading = Reading(number, path, load([file], defaults).queries)
            reading.trials()
            problems += _told(reading)
    if problems:
        raise ConfigError(problems)


def chosen(trials: Sequence[Trial], patterns: Sequence[str]) -> list[Trial]:
    """The cases whose name matches any of `patterns` (`*`, `?` and `[...]`).

    Raises ConfigError for every pattern that matches nothing.
    """
    names = [trial.case.name for trial in trials]
    problems = [
        Problem("--case", f"{quote(pattern)} matches no case{did_you_mean(pattern, names)}")
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]
    if problems:
        raise ConfigError(problems)
    return [trial for trial in trials if any(fnmatchcase(trial.case.name, one) for one in patterns)]


def _files(source: Path) -> tuple[list[Path], list[Path]]:
    """The query files that `source` means, and the files of cases for them.

    Raises ValueError with what is wrong with it, OSError where it cannot be read.
    """
    if not source.exists():
        raise ValueError("does not exist; write a query file, or a folder of query files")
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if holds_cases(path) and not path.is_dir())
        queries = files_of(source)
        if not found and not queries:
            raise ValueError("holds no query file; put a *.yaml file into it, or write another folder")
    elif holds_cases(source):
        found, queries = [source], []
    else:
        queries = [source]
        found = _cases_of(source)
    tested = [_tested(path) for path in found]
    return list(dict.fromkeys([*queries, *tested])), found


def _told(reading: Reading) -> list[Problem]:
    return [one.problem for one in sorted(reading.found, key=lambda one: one.order)]


def _cases_of(file: Path) -> list[Path]:
    return [path for suffix in _SUFFIXES if (path := _beside(file, ".test", suffix)).exists()]


def _beside(path: Path, word: str, suffix: str = ".yaml") -> Path:
    return path.with_name(f"{path.stem.removesuffix('.test')}{word}{suffix}")


def _tested(cases: Path) -> Path:
    """The query file that `cases` belong to; where there is none, the one that should be there."""
    beside = [_beside(cases, "", suffix) for suffix in _SUFFIXES]
    return next((path for path in beside if path.exists()), beside[0])

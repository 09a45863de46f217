"""Discovery of test cases next to the query files that they test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.config.queries.files import files_of, holds_cases, unreadable
from poller.config.queries.load import load
from poller.model.catalog import Defaults
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.patterns import select_names
from poller.model.query import QueryDefinition
from poller.model.text import did_you_mean, quote
from poller.tools.test.case_file import CaseReader, LoadedCase

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Collected:
    """Test cases in the order of their files, and the names of the queries without a case."""

    loaded_cases: tuple[LoadedCase, ...]
    untested: tuple[str, ...]


def collect(sources: Sequence[Path], defaults: Defaults) -> Collected:
    """Read the cases of `sources`: query files, test case files, and folders of both.

    Raises ConfigError with every problem in every file. A test case file is read only if its query file is
    valid.
    """
    problems: list[Diagnostic] = []
    queries: dict[Path, tuple[QueryDefinition, ...] | None] = {}
    files: list[Path] = []
    for source in sources:
        try:
            query_files, case_files = _files(source)
        except (OSError, ValueError) as error:
            message = str(error) if type(error) is ValueError else unreadable(error)
            problems.append(invalid(str(source), message))
            continue
        queries |= dict.fromkeys(query_files)
        files += [file for file in case_files if file not in files]
    for path in queries:
        try:
            queries[path] = load([path], defaults).queries
        except ConfigError as error:
            problems += error.problems
    loaded_cases: list[LoadedCase] = []
    for path in files:
        if (listed := queries[_tested(path)]) is not None:
            reader = CaseReader(path, listed)
            loaded_cases += reader.loaded_cases()
            problems += sorted(reader.problems, key=lambda problem: problem.line)
    if not files and not problems:
        example = _sibling(next(iter(queries)), ".test")
        problems.append(invalid("poller test", f"finds no cases; write cases to {example}"))
    if problems:
        raise ConfigError(problems)
    tried = {loaded_case.query.name for loaded_case in loaded_cases}
    names = [query.name for listed in queries.values() for query in listed or ()]
    return Collected(tuple(loaded_cases), tuple(name for name in names if name not in tried))


def check_cases(files: Sequence[Path], defaults: Defaults) -> None:
    """Raise ConfigError with every problem in the test cases of the valid query files `files`."""
    problems: list[Diagnostic] = []
    for file in files:
        for path in _cases_of(file):
            reader = CaseReader(path, load([file], defaults).queries)
            reader.loaded_cases()
            problems += sorted(reader.problems, key=lambda problem: problem.line)
    if problems:
        raise ConfigError(problems)


def select_cases(loaded_cases: Sequence[LoadedCase], patterns: Sequence[str]) -> list[LoadedCase]:
    """The cases whose names match any of `patterns` (`*`, `?` and `[...]`).

    Raises ConfigError for every pattern that matches nothing.
    """
    names = [loaded_case.case.name for loaded_case in loaded_cases]
    selected = select_names(patterns, names, "--case", _no_case)
    return [loaded_case for loaded_case in loaded_cases if loaded_case.case.name in selected]


def _no_case(pattern: str, names: Sequence[str]) -> str:
    return f"{quote(pattern)} matches no case{did_you_mean(pattern, names)}"


def _files(source: Path) -> tuple[list[Path], list[Path]]:
    """The query files of `source`, and their test case files.

    Raises ValueError with the problem if `source` cannot be used, OSError if it cannot be read.
    """
    if not source.exists():
        raise ValueError("does not exist; write a query file, or a folder of query files")
    if source.is_dir():
        cases = sorted(path for path in source.iterdir() if holds_cases(path) and not path.is_dir())
        queries = files_of(source)
        if not cases and not queries:
            raise ValueError("contains no query file; add a *.yaml file, or write another folder")
    elif holds_cases(source):
        cases, queries = [source], []
    else:
        queries = [source]
        cases = _cases_of(source)
    tested = [_tested(path) for path in cases]
    return list(dict.fromkeys([*queries, *tested])), cases


def _cases_of(file: Path) -> list[Path]:
    return [path for suffix in _SUFFIXES if (path := _sibling(file, ".test", suffix)).exists()]


def _sibling(path: Path, infix: str, suffix: str = ".yaml") -> Path:
    return path.with_name(f"{path.stem.removesuffix('.test')}{infix}{suffix}")


def _tested(cases: Path) -> Path:
    """The query file of `cases`; the expected path if there is none."""
    candidates = [_sibling(cases, "", suffix) for suffix in _SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])

"""Readers of other tools' YAML and TOML files, with the line of every key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.config.queries.files import unreadable
from poller.config.yaml_reader import parse
from poller.model.diagnostics import Diagnostic, Place, invalid
from poller.model.errors import ConfigError
from poller.model.files import NotRegularError, read_regular
from poller.model.path import PathKey
from poller.tools.importers.losses import Losses
from poller.tools.importers.node import SourceFile, SourceNode

_MAX_BYTES = 16 << 20
"""Maximum size of a file in bytes; the YAML reader has a lower limit."""
_TABLE = re.compile(r"\s*(\[\[?)\s*([\w.\"' -]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([\w-]+)\s*=")


def open_each(files: Sequence[Path], open_file: Callable[[Path], SourceFile]) -> list[SourceFile]:
    """Open all `files`; raises ConfigError with a problem for each file that cannot be read."""
    sources: list[SourceFile] = []
    problems: list[Diagnostic] = []
    for file in files:
        try:
            sources.append(open_file(file))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return sources


def files_of(path: Path, suffixes: Collection[str]) -> list[Path]:
    """Return `path`, or the files in this folder by name; raises ConfigError if there are none."""
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.iterdir() if file.suffix in suffixes and file.is_file())
    except OSError as error:
        raise _error(str(path), unreadable(error)) from None
    if not files:
        raise _error(str(path), f"contains no {' or '.join(sorted(suffixes))} file")
    return files


def open_yaml(
    file: Path,
    losses: Losses,
    tags: Collection[str] = (),
    resolve: Callable[[SourceNode], SourceNode] = lambda node: node,
) -> SourceFile:
    """Read `file` as YAML; problems with single keys are reported as losses. Raises ConfigError."""
    raw = _read(file)
    text = raw.decode("utf-8-sig", errors="replace")
    if all(line.strip() in ("", "---") or line.lstrip().startswith("#") for line in text.splitlines()):
        return SourceFile(file, text, {}, lambda _: 1, losses, resolve=resolve)  # empty, or comments only
    document = parse(raw, file, tags)
    if document.root is None or not isinstance(document.data, dict | list):
        problem = document.problems[-1] if document.problems else None
        where = f"{file}:{problem.line}" if problem else str(file)
        raise _error(where, problem.message if problem else "contains no mapping; name another file")
    for problem in document.problems:
        place = problem.place or Place(file)
        losses.add_loss(place, problem.message.partition(";")[0], "fix it in that file first")
    return SourceFile(file, text, document.data, document.line, losses, document.written, resolve)


def open_toml(file: Path, losses: Losses) -> SourceFile:
    """Read `file` as TOML. Raises ConfigError."""
    try:
        text = _read(file).decode("utf-8-sig")
        data = tomllib.loads(text, parse_float=_Float)
    except UnicodeDecodeError as error:
        raise _error(str(file), f"is not UTF-8 ({error.reason})") from None
    except tomllib.TOMLDecodeError as error:
        raise _error(str(file), f"is not TOML: {error}") from None
    except RecursionError:
        raise _error(str(file), "is nested too deeply") from None
    return SourceFile(file, text, data, _LineIndex(tuple(_key_lines(text))).line, losses)


def _error(where: str, message: str) -> ConfigError:
    return ConfigError([invalid(where, message)])


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, _MAX_BYTES)
    except NotRegularError:
        raise _error(str(file), "is not a regular file") from None
    except (OSError, ValueError) as error:
        raise _error(str(file), unreadable(error)) from None


class _Float(float):
    """A number whose text is the one in the file: 1.10, not 1.1."""

    def __init__(self, written: str) -> None:
        self._written = written

    def __str__(self) -> str:
        return self._written


@dataclass(frozen=True, slots=True)
class _LineIndex:
    """Line numbers of the tables and keys of a TOML file, which Python's parser does not provide."""

    marks: tuple[tuple[tuple[PathKey, ...], int], ...]

    def line(self, path: Sequence[PathKey]) -> int:
        """Return the line of `path`, or of the innermost table around it."""
        best = 1
        for length in range(1, len(path) + 1):
            best = next((line for mark, line in self.marks if mark == tuple(path[:length])), best)
        return best


def _key_lines(text: str) -> Iterator[tuple[tuple[PathKey, ...], int]]:
    counts: dict[tuple[PathKey, ...], int] = {}
    table: tuple[PathKey, ...] = ()
    until = ""
    for number, line in enumerate(text.splitlines(), 1):
        if until:  # inside a multi-line string
            until = "" if line.count(until) % 2 else until
            continue
        if match := _TABLE.fullmatch(line):
            table = _table_path(
                [word.strip(" \"'") for word in match[2].split(".")], counts, match[1] == "[["
            )
            yield table, number
        elif match := _KEY.match(line):
            yield (*table, match[1]), number
        until = next((quote for quote in ('"""', "'''") if line.count(quote) % 2), "")


def _table_path(
    words: Sequence[str], counts: dict[tuple[PathKey, ...], int], is_array: bool
) -> tuple[PathKey, ...]:
    """Return the path of a table; the index of the last member follows each array of tables."""
    path: tuple[PathKey, ...] = ()
    for number, word in enumerate(words):
        path = (*path, word)
        if is_array and number == len(words) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path

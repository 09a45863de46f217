"""YAML file of the configuration: its data, the locations of its keys, and its structural errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from poller.config.error_messages import unknown_key
from poller.config.queries.files import MAX_BYTES, files_of, source_problem, unreadable
from poller.config.yaml_reader import Document, parse
from poller.model.diagnostics import Diagnostic, Place
from poller.model.files import NotRegularError, open_regular
from poller.model.path import PathKey
from poller.model.text import kind_of, near


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A file whose content is a mapping."""

    path: Path
    document: Document | str
    """The parsed file, or why it cannot be read."""

    RULE: ClassVar[str] = "query-file"
    """Rule of `poller check`."""

    def problem(self, path: Sequence[PathKey], message: str) -> Diagnostic:
        return Diagnostic("error", self.RULE, message, place=self.place(path))

    def place(self, path: Sequence[PathKey]) -> Place:
        """Return the location of the key or item at `path`."""
        line, column = (1, 1) if isinstance(self.document, str) else self.document.spot(path)
        return Place(self.path, line, tuple(path), column)

    def where(self, path: Sequence[PathKey]) -> str:
        """Return the file and the line of `path`, for messages."""
        place = self.place(path)
        return f"{place.file}:{place.line}"

    def line(self, path: Sequence[PathKey]) -> int:
        return self.place(path).line or 1

    def written(self, path: Sequence[PathKey]) -> str | None:
        """Return the scalar at `path` as written; None if it is unknown."""
        return None if isinstance(self.document, str) else self.document.written(path)

    @property
    def data(self) -> dict[str, Any]:
        """The content; empty if it is not a mapping."""
        data = None if isinstance(self.document, str) else self.document.data
        return data if isinstance(data, dict) else {}

    def mapping_problems(self, example: str) -> Iterator[Diagnostic]:
        """Return why the content is not a mapping, and the problems of its YAML."""
        if isinstance(self.document, str):
            yield Diagnostic("error", self.RULE, self.document, place=Place(self.path))
            return
        yield from self.document.problems
        if self.document.data is None and not (self.document.root is None and self.document.problems):
            yield self.problem((), f"is empty; {example}")
        elif self.document.root is not None and not isinstance(self.document.data, dict):
            yield self.problem((), f"is {kind_of(self.document.data)}, not a mapping; {example}")


@dataclass(frozen=True, slots=True)
class ListFile(YamlFile):
    """A file with a list of items, below the first of its keys."""

    KEYS: ClassVar[tuple[str, ...]] = ()
    """The top-level keys."""
    KIND: ClassVar[str] = ""
    """Noun for such a file."""
    ITEM: ClassVar[str] = ""
    """Noun for an item."""
    ITEM_KEYS: ClassVar[str] = ""
    """The most important keys of an item, for messages."""
    OTHER: ClassVar[tuple[str, str]] = ("", "")
    """The list of the other kind of file, and how to pass such a file."""

    @classmethod
    def open_all(cls, sources: Sequence[Path]) -> list[Self]:
        """Return the parsed files of `sources`, each once; an unusable source is an invalid one."""
        files: list[Self] = []
        paths: set[str] = set()
        for source in sources:
            if problem := source_problem(source, cls.KIND):
                files.append(cls(source, problem))
                continue
            for path in files_of(source):
                real = os.path.realpath(path)
                if real not in paths:  # so that `shipped:queries` reports no duplicate names
                    paths.add(real)
                    files.append(cls(path, read(path)))
        return files

    def items(self) -> Iterator[tuple[tuple[PathKey, ...], dict[str, Any]]]:
        """Return every item that is a mapping, with its path."""
        items = self.data.get(self.KEYS[0])
        for index, item in enumerate(items if isinstance(items, list) else []):
            if isinstance(item, dict):
                yield (self.KEYS[0], index), item

    def file_problems(self) -> Iterator[Diagnostic]:
        """Return the problems outside the items."""
        example = f"write `{self.KEYS[0]}:` and a list of {self.KEYS[0]} below it"
        yield from self.mapping_problems(example)
        if not isinstance(self.document, str) and isinstance(self.document.data, dict):
            yield from self._key_problems(example)

    def _key_problems(self, example: str) -> Iterator[Diagnostic]:
        key, data = self.KEYS[0], self.data
        of_other, problem = self.OTHER
        if of_other in data and key not in data:  # its other keys are not mistakes
            yield self.problem((of_other,), problem)
            return
        others = [other for other in data if other not in self.KEYS]
        for other in others:
            yield self.problem((other,), unknown_key(other, self.KEYS))
        items = data.get(key)
        if key not in data:
            if not any(near(other, [key]) for other in others):
                yield self.problem((key,), f"is missing; {example}")
        elif items is None or items in ([], {}, ""):
            message = f"is empty; write at least one {self.ITEM} below it, each with a leading dash"
            yield self.problem((key,), message)
        elif not isinstance(items, list):
            message = f"is {kind_of(items)}, not a list; begin each {self.ITEM} with a dash"
            yield self.problem((key,), message)
        else:
            for index, item in enumerate(items):
                if not isinstance(item, dict):
                    message = "is empty" if item is None else f"is {kind_of(item)}, not a mapping"
                    yield self.problem((key, index), f"{message}; write {self.ITEM_KEYS}")


def read(path: Path) -> Document | str:
    """Return the parsed YAML of `path`, or why it cannot be read."""
    try:
        with open_regular(path) as file:
            return parse(file.read(MAX_BYTES + 1), path)
    except NotRegularError:
        return "is not a regular file; write a file or a folder"
    except (OSError, ValueError) as error:
        return unreadable(error)


def in_order(problems: Sequence[Diagnostic], files: Sequence[YamlFile]) -> list[Diagnostic]:
    """Return the problems in the order of files and lines."""
    numbers = {file.path: number for number, file in enumerate(files)}

    def order(problem: Diagnostic) -> tuple[int, int]:
        return numbers[problem.place.file] if problem.place else 0, problem.line

    return sorted(problems, key=order)

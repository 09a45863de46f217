"""Query file as parsed YAML: top-level keys, source locations and structural errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from poller.config.queries.error_messages import unknown_key
from poller.config.queries.files import MAX_BYTES, unreadable
from poller.config.queries.yaml_reader import Document, parse
from poller.model.diagnostics import Diagnostic, Place, invalid
from poller.model.files import NotRegularError, open_regular, read_regular
from poller.model.path import Key
from poller.model.text import kind_of, near

_KEYS = ["queries", "snapshot"]
_EXAMPLE = "write `queries:` and a list of queries below it"


@dataclass(frozen=True, slots=True)
class QueryFile:
    path: Path
    document: Document | str
    """The parsed file, or why it cannot be read."""

    def problem(self, path: Sequence[Key], message: str) -> Diagnostic:
        return invalid(self.place(path), message)

    def place(self, path: Sequence[Key]) -> Place:
        """Return the location of the key or item at `path`."""
        line, column = (1, 1) if isinstance(self.document, str) else self.document.spot(path)
        return Place(self.path, line, tuple(path), column)

    def where(self, path: Sequence[Key]) -> str:
        """Return the file and the line of `path`, for messages."""
        place = self.place(path)
        return f"{place.file}:{place.line}"

    def line(self, path: Sequence[Key]) -> int:
        return self.place(path).line or 1

    def written(self, path: Sequence[Key]) -> str | None:
        """Return the scalar at `path` as written; None if it is unknown."""
        return None if isinstance(self.document, str) else self.document.written(path)

    def defaults(self) -> dict[str, Any]:
        """Return the defaults that the file sets for its queries."""
        data = None if isinstance(self.document, str) else self.document.data
        snapshot = data.get("snapshot") if isinstance(data, dict) else None
        return {"snapshot": snapshot} if isinstance(snapshot, bool) else {}

    def queries(self) -> Iterator[tuple[tuple[Key, ...], dict[str, Any]]]:
        """Return every query that is a mapping, with its path."""
        data = None if isinstance(self.document, str) else self.document.data
        listed = data.get("queries") if isinstance(data, dict) else None
        for index, query in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(query, dict):
                yield ("queries", index), query

    def flaws(self) -> Iterator[Diagnostic]:
        """Return the problems outside the queries."""
        if isinstance(self.document, str):
            yield invalid(Place(self.path), self.document)
            return
        yield from self.document.problems
        if self.document.root is None:
            return
        data = self.document.data
        if data is None:
            yield self.problem((), f"is empty; {_EXAMPLE}")
        elif not isinstance(data, dict):
            yield self.problem((), f"is {kind_of(data)}, not a mapping; {_EXAMPLE}")
        else:
            yield from self._top(data)

    def _top(self, data: dict[str, Any]) -> Iterator[Diagnostic]:
        others = [key for key in data if key not in _KEYS]
        for key in others:
            yield self.problem((key,), unknown_key(key, _KEYS))
        if not isinstance(snapshot := data.get("snapshot", True), bool):
            yield self.problem(("snapshot",), f"is {kind_of(snapshot)}; write true or false")
        queries = data.get("queries")
        if "queries" not in data:
            if not any(near(key, ["queries"]) for key in others):
                yield self.problem(("queries",), f"is missing; {_EXAMPLE}")
        elif queries is None or queries in ([], {}, ""):
            yield self.problem(
                ("queries",), "is empty; write at least one query below it, each with a leading dash"
            )
        elif not isinstance(queries, list):
            yield self.problem(
                ("queries",), f"is {kind_of(queries)}, not a list; begin each query with a dash"
            )
        else:
            for index, query in enumerate(queries):
                if not isinstance(query, dict):
                    message = "is empty" if query is None else f"is {kind_of(query)}, not a mapping"
                    yield self.problem(("queries", index), f"{message}; write name, sql and metrics")


@dataclass(frozen=True)
class Origin:
    """Location of one query in its file."""

    file: QueryFile
    path: tuple[Key, ...]

    def place(self, *path: Key) -> Place:
        """Return the location of the key at `path` in the query, or of the innermost existing key."""
        return self.file.place((*self.path, *path))

    def in_sql(self, path: tuple[Key, ...], sql: str, position: int | None) -> Place:
        """Return the location of character `position` (from 1) of `sql`, the text at `path`.

        YAML may fold a text. If no line of the file contains the line of SQL unchanged, the location of the
        key is returned.
        """
        key = self.place(*path)
        if position is None or key.line is None:
            return key
        number, column = spot_in(sql, position)
        sql_line = sql.split("\n")[number - 1].strip()
        # A text of one line is next to its key, a block is below it.
        for at in (key.line, key.line + number) if number == 1 else (key.line + number,):
            line = self._lines[at - 1] if at <= len(self._lines) else ""
            start = line.find(sql_line)
            if sql_line and start >= 0:
                indent = len(sql.split("\n")[number - 1]) - len(sql.split("\n")[number - 1].lstrip())
                return replace(key, line=at, column=start + column - indent)
        return key

    @cached_property
    def _lines(self) -> Sequence[str]:
        try:
            return read_regular(self.file.path, MAX_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeError):
            return ()


def spot_in(sql: str, position: int) -> tuple[int, int]:
    """Return line and column, from 1, of character `position`, from 1."""
    before = sql[: position - 1]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def read(path: Path) -> Document | str:
    """Return the parsed YAML of `path`, or why it cannot be read."""
    try:
        with open_regular(path) as file:
            return parse(file.read(MAX_BYTES + 1), path)
    except NotRegularError:
        return "is not a regular file; write a file or a folder"
    except (OSError, ValueError) as error:
        return unreadable(error)

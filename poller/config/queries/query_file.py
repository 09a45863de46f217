"""Query file as parsed YAML: its queries and their defaults, and locations in statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from poller.config.queries.files import MAX_BYTES
from poller.config.queries.schema.parameters import parameter_names
from poller.config.queries.sql_ast import without_end
from poller.config.queries.sql_parameters import to_placeholders
from poller.config.yaml_file import ListFile
from poller.model.diagnostics import Diagnostic, Place
from poller.model.files import read_regular
from poller.model.path import PathKey
from poller.model.text import kind_of


@dataclass(frozen=True, slots=True)
class QueryFile(ListFile):
    """A file with a list of queries, and defaults for them."""

    KEYS: ClassVar = ("queries", "snapshot")
    KIND: ClassVar = "query file"
    ITEM: ClassVar = "query"
    ITEM_KEYS: ClassVar = "name, sql and metrics"
    OTHER: ClassVar = (
        "targets",
        "is the list of a targets file, not of a query file; write --targets FILE, or set POLLER_TARGETS",
    )

    def defaults(self) -> dict[str, Any]:
        """Return the defaults that the file sets for its queries."""
        snapshot = self.data.get("snapshot")
        return {"snapshot": snapshot} if isinstance(snapshot, bool) else {}

    def queries(self) -> Iterator[tuple[tuple[PathKey, ...], dict[str, Any]]]:
        """Return every query that is a mapping, with its path."""
        return self.items()

    def file_problems(self) -> Iterator[Diagnostic]:
        """Return the problems outside the queries."""
        yield from ListFile.file_problems(self)
        if not isinstance(snapshot := self.data.get("snapshot", True), bool):
            yield self.problem(("snapshot",), f"is {kind_of(snapshot)}; write true or false")


@dataclass(frozen=True)
class Origin:
    """Location of one query in its file."""

    file: QueryFile
    path: tuple[PathKey, ...]

    def place(self, *path: PathKey) -> Place:
        """Return the location of the key at `path` in the query, or of the innermost existing key."""
        return self.file.place((*self.path, *path))

    def value(self, *path: PathKey) -> Any:
        """Return the value at `path` in the query, as it was written."""
        value: Any = self.file.data
        for key in (*self.path, *path):
            value = value[key]
        return value

    def statement(self, *path: PathKey) -> str:
        """Return the statement at `path`, by default `sql`, with the server's placeholders."""
        names = parameter_names(self.value().get("parameters"))
        return to_placeholders(str(self.value(*(path or ("sql",)))), names)

    def written_sql(
        self, path: tuple[PathKey, ...], sql: str, position: int | None
    ) -> tuple[str, int | None]:
        """Return the text at `path` and the character of it that is at `position` of `sql`.

        `sql` is that text, or a statement around it; outside of it, the position is None.
        """
        written = str(self.value(*path))
        # Placeholders are as long as the parameters.
        start = sql.find(without_end(self.statement(*path)))
        if position is None or not start < position <= start + len(written):
            return written, None
        return written, position - start

    def in_sql(self, path: tuple[PathKey, ...], sql: str, position: int | None) -> Place:
        """Return the location of character `position` (from 1) of `sql`, the text at `path`.

        YAML may fold a text. If no line of the file contains the line of SQL unchanged, the location of the
        key is returned.
        """
        key = self.place(*path)
        if position is None or key.line is None:
            return key
        text: Any = self.file.data
        for step in (*self.path, *path):
            text = text[step]
        sql = str(text)
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

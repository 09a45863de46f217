"""Source locations of the parts of a query, down to a character of its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from poller.config.queries.files import MAX_BYTES
from poller.config.queries.query_file import QueryFile
from poller.model.errors import Place
from poller.model.files import read_regular
from poller.model.path import Key


@dataclass(frozen=True)
class Origin:
    """One query of a file."""

    file: QueryFile
    path: tuple[Key, ...]

    def place(self, *path: Key) -> Place:
        """Where the key at `path` inside the query stands, or the innermost one around it."""
        return self.file.spot((*self.path, *path))

    def in_sql(self, path: tuple[Key, ...], sql: str, position: int | None) -> Place:
        """Where character `position` (from 1) of `sql`, the text at `path`, stands; else where its key does.

        YAML folds and unfolds texts, so a line of the file counts only where it holds the line of SQL as
        it is.
        """
        key = self.place(*path)
        if position is None or key.line is None:
            return key
        number, column = spot_in(sql, position)
        wanted = sql.split("\n")[number - 1].strip()
        # Behind its key where it is one line, below it line by line.
        for at in (key.line, key.line + number) if number == 1 else (key.line + number,):
            line = self._lines[at - 1] if at <= len(self._lines) else ""
            start = line.find(wanted)
            if wanted and start >= 0:
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
    """Line and column, from 1, of character `position`, from 1."""
    before = sql[: position - 1]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

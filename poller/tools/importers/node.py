"""Typed access to the data of another tool's file, with the location of each value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from poller.model.diagnostics import Place
from poller.model.duration import parse_duration
from poller.model.numbers import is_representable
from poller.model.path import PathKey
from poller.model.text import did_you_mean, kind_of, quote
from poller.tools.importers.losses import Losses
from poller.tools.importers.sql_types import Kind

MAX_COMMENT = 20
"""Maximum number of comment lines above a query that are imported."""

_SECRET = re.compile(r"passw|secret|token|://[^/\s]*@", re.IGNORECASE)
_INSTANCE = "set POLLER_INSTANCE to distinguish pollers"
_LONG_UNITS = {"w": 7 * 86400.0, "y": 365 * 86400.0}  # units of Prometheus' durations only


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: its text, its data and the line number of each key."""

    file: Path
    text: str
    data: Any
    line: Callable[[Sequence[PathKey]], int]
    losses: Losses
    written: Callable[[Sequence[PathKey]], str | None] = field(default=lambda _: None)
    """Returns the scalar at a path as it is written in the file, such as `1.10`, if that is known."""
    resolve: Callable[[SourceNode], SourceNode] = field(default=lambda node: node)
    """Returns the replacement of a value, such as the content of an included file."""

    @property
    def root(self) -> SourceNode:
        return self.resolve(SourceNode(self, (), self.data))


@dataclass(frozen=True, slots=True)
class SourceNode:
    """A value with its location. A getter with an invalid value reports a loss and returns a default."""

    source: SourceFile
    path: tuple[PathKey, ...]
    value: Any

    @property
    def place(self) -> Place:
        return Place(self.source.file, self.source.line(self.path), self.path)

    def at(self, *keys: PathKey) -> Place:
        """Return the location of an inner value."""
        path = (*self.path, *keys)
        return Place(self.source.file, self.source.line(path), path)

    def report_loss(self, key: str, message: str, advice: str) -> None:
        """Report that the value at `key` cannot be imported."""
        self.source.losses.add_loss(self.at(key), message, advice)

    def report_change(self, key: str, message: str) -> None:
        """Report that the value at `key` has a different effect in the poller."""
        self.source.losses.add_change(self.at(key), message)

    def report_connection(self, *keys: str) -> None:
        """Report the present `keys`, which configure the connection, if no targets file is written."""
        message = "query files contain no connections; add --targets FILE, or set POLLER_DATABASE_URL"
        for key in keys:
            if key in self:
                self.report_change(key, message)

    def report_omitted_labels(self, key: str, *labels: str, are_targets: bool = False) -> None:
        """Report labels with the server or database, which the other tool exports and the poller omits.

        Without a `key` the location is the whole value.
        """
        instead = "the label instance has the target's name" if are_targets else _INSTANCE
        subject = f"label {labels[0]} is" if len(labels) == 1 else f"labels {', '.join(labels)} are"
        place = self.at(key) if key else self.place
        self.source.losses.add_change(place, f"the {subject} omitted; {instead}")

    def time_column(self, key: str, kind: Kind | None, *, gauge: bool = True) -> str:
        """Return the column with the time of the row's data points; `kind` is that of its values.

        Report a loss and return an empty text if the time is not one of a gauge, or not certainly a time.
        """
        if key not in self:
            return ""
        if gauge and kind == "time":
            message = "is time_column now, with settle: 0s, and must be a timestamptz"
            self.report_change(key, f"{message}; write settle: 10m if a row may still change for 10 minutes")
            return self.text(key)
        if gauge:
            advice = "write time_column and settle, with a timestamptz such as to_timestamp(SECONDS)"
            self.report_loss(key, "its type may not be timestamptz", advice)
        else:
            advice = "export the time as a separate metric, extract(epoch FROM ...)"
            self.report_loss(key, "only gauges have a time_column", advice)
        return ""

    def __contains__(self, key: str) -> bool:
        """Return whether `key` is present and not null."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def child(self, key: PathKey) -> SourceNode:
        return self.source.resolve(SourceNode(self.source, (*self.path, key), self.value[key]))

    def text(self, key: str) -> str:
        """Return the text at `key`, numbers and booleans as they are written; empty if there is none."""
        value = self._value(key)
        if value is None or isinstance(value, str | int | float):
            return "" if value is None else self.child(key).as_written()
        return self._wrong(key, value, "a text", "")

    def as_written(self) -> str:
        """Return a scalar as it is written; a tool that expects a text reads `1.10` as 1.10, not as 1.1."""
        if isinstance(self.value, str):
            return self.value
        written = self.source.written(self.path)
        if written is None:
            return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)
        return written

    def texts(self, key: str) -> list[str]:
        """Return the list of texts at `key`, as `text` does; a single text counts as a list."""
        value = self._value(key)
        if value is None:
            return []
        node = self.child(key)
        items = [item for _, item in node.members()] if isinstance(value, list) else [node]
        if all(isinstance(item.value, str | int | float) for item in items):
            return [item.as_written() for item in items]
        return self._wrong(key, value, "a list of texts", list[str]())

    def flag(self, key: str) -> bool:
        """Return the boolean at `key`, also in the words of YAML 1.1; false if there is none."""
        value = self._value(key)
        if isinstance(value, str) and value.lower() in ("yes", "on", "no", "off", "true", "false"):
            return value.lower() in ("yes", "on", "true")
        if value is None or isinstance(value, bool):
            return bool(value)
        return self._wrong(key, value, "true or false", False)

    def number(self, key: str) -> float | None:
        """Return the number at `key`, also from a text; None if there is none."""
        value = self._value(key)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return self._wrong(key, value, "a number", None)
        if isinstance(value, int | float) and is_representable(value):
            return value
        if value is None:
            return None
        return self._wrong(key, value, "a number", None)

    def seconds(self, key: str) -> float | None:
        """Return the duration at `key` in seconds, in the syntax of Go or Prometheus, or as a number."""
        value = self._value(key)
        if value is None:
            return None
        if isinstance(value, str) and (match := re.fullmatch(r"(\d+)([wy])", value)):
            return int(match[1]) * _LONG_UNITS[match[2]]
        try:
            seconds = parse_duration(value)
        except ValueError:
            return self._wrong(key, value, "a duration", None)
        return seconds if isinstance(seconds, float) else None

    def items(self, key: str) -> list[SourceNode]:
        """Return the mappings in the list at `key`."""
        value = self._value(key)
        if value is not None and not isinstance(value, list):
            self._wrong(key, value, "a list", None)
        node = self.child(key) if key in self else None
        return [] if node is None else [item for _, item in node.members() if item.is_mapping()]

    def entries(self, key: str) -> list[tuple[str, SourceNode]]:
        """Return the members of the mapping at `key` by name."""
        value = self._value(key)
        if value is not None and not isinstance(value, dict):
            self._wrong(key, value, "a mapping", None)
        node = self.child(key) if key in self else None
        return [] if node is None or not isinstance(node.value, dict) else node.members()

    def members(self) -> list[tuple[str, SourceNode]]:
        """Return all members of a mapping or a list by key or index."""
        if isinstance(self.value, dict):
            return [(str(key), self.child(key)) for key in self.value]
        count = len(self.value) if isinstance(self.value, list) else 0
        return [(str(index), self.child(index)) for index in range(count)]

    def is_mapping(self) -> bool:
        """Return whether the value is a mapping; report it if not."""
        if isinstance(self.value, dict):
            return True
        self.source.losses.add_loss(
            self.place, f"is {kind_of(self.value)}, not a mapping", "write keys below it"
        )
        return False

    def report_unknown_keys(self, *keys: str) -> None:
        """Report every key of the mapping that is not in `keys`."""
        for key in self.value if isinstance(self.value, dict) else ():
            if key not in keys:
                self.report_loss(
                    key, f"unknown key {quote(key)}{did_you_mean(key, keys)}", "fix or remove it"
                )

    def comment(self) -> tuple[str, ...]:
        """Return the lines of the comment directly above, without lines that may contain a secret."""
        lines = self.source.text.splitlines()
        above = list(_upwards(lines, self.source.line(self.path) - 2))[:MAX_COMMENT]
        return tuple(line for line in reversed(above) if line and not _SECRET.search(line))

    def _value(self, key: str) -> Any:
        if not isinstance(self.value, dict) or key not in self.value:
            return None
        return self.child(key).value

    def _wrong(self, key: str, value: Any, expected: str, default: _T) -> _T:
        # A connection string may be in the place of a mapping or a list.
        is_quotable = isinstance(value, str) and expected not in ("a list", "a mapping")
        actual = quote(value) if is_quotable else kind_of(value)
        self.report_loss(key, f"is {actual}, not {expected}", f"write {expected}")
        return default


def _upwards(lines: Sequence[str], number: int) -> Iterator[str]:
    while 0 <= number < len(lines) and lines[number].lstrip().startswith("#"):
        yield lines[number].strip().lstrip("#").strip()
        number -= 1

"""Typed access to the data of another tool's file, with the location of each value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from poller.model.duration import parse_duration
from poller.model.numbers import is_representable
from poller.model.path import Key
from poller.model.text import did_you_mean, kind_of, quote
from poller.tools.importers.losses import Losses, Place

MAX_COMMENT = 20
"""Maximum number of comment lines above a query that are imported."""

_SECRET = re.compile(r"passw|secret|token|://[^/\s]*@", re.IGNORECASE)
_WEEKS = {"w": 7 * 86400.0, "y": 365 * 86400.0}  # Prometheus' durations have these units, the poller's do not


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its text, its data and the line number of each key."""

    file: Path
    text: str
    data: Any
    line: Callable[[Sequence[Key]], int]
    losses: Losses
    resolve: Callable[[Node], Node] = field(default=lambda node: node)
    """Returns the replacement of a value, such as the content of an included file."""

    @property
    def root(self) -> Node:
        return self.resolve(Node(self, (), self.data))


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its location. A getter with an invalid value reports a loss and returns a default."""

    source: Source
    path: tuple[Key, ...]
    value: Any

    @property
    def place(self) -> Place:
        return Place(self.source.file, self.source.line(self.path), self.path)

    def at(self, *keys: Key) -> Place:
        """Return the location of an inner value."""
        path = (*self.path, *keys)
        return Place(self.source.file, self.source.line(path), path)

    def lost(self, key: str, what: str, instead: str) -> None:
        self.source.losses.lost(self.at(key), what, instead)

    def changed(self, key: str, what: str) -> None:
        self.source.losses.changed(self.at(key), what)

    def connection(self, *keys: str) -> None:
        """Report those of `keys` that are present; they configure the connection."""
        for key in keys:
            if key in self:
                self.changed(
                    key, "connections are no part of query files; set POLLER_DATABASE_URL, one poller each"
                )

    def unmade(self, key: str, *labels: str) -> None:
        """Report labels with the server or database, which the other tool exports and the poller omits.

        Without a `key` the location is the whole value.
        """
        told = f"label {labels[0]} is" if len(labels) == 1 else f"labels {', '.join(labels)} are"
        place = self.at(key) if key else self.place
        self.source.losses.changed(place, f"the {told} not made; pollers are told apart by POLLER_INSTANCE")

    def session(self, key: str) -> None:
        """Report statements that set up a session."""
        if key in self:
            self.lost(key, "the poller sets its sessions up itself", "use ALTER ROLE ... SET")

    def timestamp(self, key: str) -> None:
        """Report a column that contains the time of the row's data points."""
        if key in self:
            what = "points carry the time of their push"
            self.lost(key, what, "export the time as a metric of its own, extract(epoch FROM ...)")

    def __contains__(self, key: str) -> bool:
        """Return whether `key` is present and not null."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def child(self, key: Key) -> Node:
        return self.source.resolve(Node(self.source, (*self.path, key), self.value[key]))

    def text(self, key: str) -> str:
        """Return the text at `key`, also of numbers and booleans; empty if there is none."""
        value = self._value(key)
        if isinstance(value, bool):
            return str(value).lower()
        if value is None or isinstance(value, str | int | float):
            return "" if value is None else str(value)
        return self._wrong(key, value, "a text", "")

    def texts(self, key: str) -> list[str]:
        """Return the list of texts at `key`; a single text counts as a list."""
        value = self._value(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if all(isinstance(item, str | int | float) for item in items):
            return [str(item) for item in items]
        return self._wrong(key, value, "a list of texts", list[str]())

    def flag(self, key: str) -> bool:
        """Return the boolean at `key`, false if there is none; YAML 1.1's words count as well."""
        value = self._value(key)
        if isinstance(value, str) and value.lower() in ("yes", "on", "no", "off", "true", "false"):
            return value.lower() in ("yes", "on", "true")
        if value is None or isinstance(value, bool):
            return bool(value)
        return self._wrong(key, value, "true or false", False)

    def number(self, key: str) -> float | None:
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
            return int(match[1]) * _WEEKS[match[2]]
        try:
            seconds = parse_duration(value)
        except ValueError:
            return self._wrong(key, value, "a duration", None)
        return seconds if isinstance(seconds, float) else None

    def items(self, key: str) -> list[Node]:
        """Return the mappings in the list at `key`."""
        value = self._value(key)
        if value is not None and not isinstance(value, list):
            self._wrong(key, value, "a list", None)
        node = self.child(key) if key in self else None
        return [] if node is None else [one for _, one in node.members() if one.is_mapping()]

    def entries(self, key: str) -> list[tuple[str, Node]]:
        """Return the members of the mapping at `key` by name."""
        value = self._value(key)
        if value is not None and not isinstance(value, dict):
            self._wrong(key, value, "a mapping", None)
        node = self.child(key) if key in self else None
        return [] if node is None or not isinstance(node.value, dict) else node.members()

    def members(self) -> list[tuple[str, Node]]:
        """Return all members of a mapping or a list by key or index."""
        if isinstance(self.value, dict):
            return [(str(key), self.child(key)) for key in self.value]
        count = len(self.value) if isinstance(self.value, list) else 0
        return [(str(index), self.child(index)) for index in range(count)]

    def is_mapping(self) -> bool:
        """Return whether the value is a mapping; report it if not."""
        if isinstance(self.value, dict):
            return True
        self.source.losses.lost(self.place, f"is {kind_of(self.value)}, not a mapping", "write keys below it")
        return False

    def others(self, *known: str) -> None:
        """Report every key that is not in `known`."""
        for key in self.value if isinstance(self.value, dict) else ():
            if key not in known:
                self.lost(key, f"unknown key {quote(key)}{did_you_mean(key, known)}", "mend or remove it")

    def comment(self) -> tuple[str, ...]:
        """Return the lines of the comment directly above, without lines that may contain a secret."""
        lines = self.source.text.splitlines()
        above = list(_upwards(lines, self.source.line(self.path) - 2))[:MAX_COMMENT]
        return tuple(line for line in reversed(above) if line and not _SECRET.search(line))

    def _value(self, key: str) -> Any:
        if not isinstance(self.value, dict) or key not in self.value:
            return None
        return self.child(key).value

    def _wrong(self, key: str, value: Any, wanted: str, instead: _T) -> _T:
        told = quote(value) if isinstance(value, str) else kind_of(value)
        self.lost(key, f"is {told}, not {wanted}", f"write {wanted}")
        return instead


def _upwards(lines: Sequence[str], number: int) -> Iterator[str]:
    while 0 <= number < len(lines) and lines[number].lstrip().startswith("#"):
        yield lines[number].strip().lstrip("#").strip()
        number -= 1

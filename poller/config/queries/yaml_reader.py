"""Strict YAML reader that records the position of every key.

PyYAML's constructor (YAML 1.1) silently keeps the last of two equal keys, and reads `no` as false, `12:30:00`
as 45000 and `010` as 8. This reader rejects duplicate keys, accepts only `true` and `false` as booleans (YAML
1.2, core schema) and only decimal numbers: `007`, `0x10` and `12:30:00` remain strings.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from poller.config.queries.files import MAX_BYTES
from poller.config.queries.yaml_errors import of_character, of_syntax
from poller.model.diagnostics import Diagnostic, Place, invalid
from poller.model.path import Key

MAX_DEPTH = 32
MAX_WEIGHT = 100_000
"""Maximum number of values with all aliases expanded (a long text counts more). It is far above any query
file, and far below the expansion of a few nested aliases."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,3999})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class Position(NamedTuple):
    """Position in a file: line and column, both from 1."""

    line: int
    column: int


@dataclass(slots=True, eq=False)
class Node:
    """One value, and the positions of its parts."""

    spot: Position
    value: Any = None
    children: dict[Key, tuple[Position, Node]] = field(default_factory=dict)
    """Position and node of each key or item; an alias shares the node of its anchor."""
    weight: int = 1
    depth: int = 1
    text: str | None = None
    """A scalar as written; None for mappings and lists."""


class Tagged(str):
    """A text with a tag that the caller accepts, such as `!include`."""

    __slots__ = ("tag",)

    def __new__(cls, text: str, tag: str) -> Tagged:
        tagged = super().__new__(cls, text)
        tagged.tag = tag
        return tagged

    tag: str


class UnreadableError(Exception):
    """The rest of the file cannot be read, from `line` on; the text is the reason."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class _Open:
    """A mapping or list that is not complete yet."""

    node: Node
    anchor: str | None
    mapping: bool
    key: tuple[str, Position] | None = None
    skipped: bool = False
    """Whether the next value belongs to a rejected key."""
    merges: list[Node] = field(default_factory=list)
    merge_line: int | None = None


class Builder:
    """Builder of nodes from the parser's events, without recursion, so that deep nesting cannot overflow."""

    def __init__(self, file: Path, tags: Container[str]) -> None:
        self._file = file
        self._tags = tags
        self.root: Node | None = None
        self.flaws: list[Diagnostic] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        """None while the anchored node is incomplete: an alias to it would contain itself."""
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Process the next event; raises UnreadableError if the rest cannot be read."""
        mark = event.start_mark
        spot = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        line = spot.line
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise UnreadableError(
                        line, "begins a second document; remove the `---`, or move it to its own file"
                    )
            case yaml.AliasEvent():
                self._add(self._named(str(event.anchor), line), spot)
            case yaml.ScalarEvent():
                if event.tag not in self._tags:
                    self._tag(event.tag, line)
                self._scalar(event, spot)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._tag(event.tag, line)
                mapping = isinstance(event, yaml.MappingStartEvent)
                if self._wants_key():
                    raise UnreadableError(line, "has a mapping or list as a key; write a text")
                if len(self._open) >= MAX_DEPTH:
                    raise UnreadableError(
                        line, f"is nested deeper than {MAX_DEPTH} levels; reduce the nesting"
                    )
                self._open.append(_Open(Node(spot), event.anchor, mapping))
                if event.anchor is not None:
                    self._anchors[event.anchor] = None
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()

    def report(self, line: int, message: str) -> None:
        """Add a problem with the value that is being read."""
        self.flaws.append(invalid(Place(self._file, line, self._path()), message))

    def _named(self, anchor: str, line: int) -> Node:
        if anchor not in self._anchors:
            message = f"alias *{anchor[:60]} has no anchor above it; write &{anchor[:60]} before the value"
            raise UnreadableError(line, message)
        node = self._anchors[anchor]
        if node is None:
            raise UnreadableError(line, f"alias *{anchor[:60]} is inside its own anchor; remove it")
        return node

    def _tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            name = tag.replace("tag:yaml.org,2002:", "!!")[:60]
            self.report(line, f"tag {name} is not supported; write the value without it")

    def _scalar(self, event: yaml.ScalarEvent, spot: Position) -> None:
        text = event.value
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            message = "contains an invalid character (NUL, or half of a surrogate pair); omit it"
            self.report(spot.line, message)
            text = re.sub("[\0\ud800-\udfff]", "", text)
        plain = not event.style
        if self._wants_key():
            self._key(text, plain, spot)
            return
        value = _plain(text) if plain and event.tag is None else text
        if event.tag is not None and event.tag in self._tags:
            value = Tagged(text, event.tag)
        node = Node(spot, value, weight=1 + len(text) // 64, text=text)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node, spot)

    def _key(self, text: str, plain: bool, spot: Position) -> None:
        parent, line = self._open[-1], spot.line
        parent.key, parent.skipped = (text, spot), False
        first = parent.merge_line if text == "<<" and plain else None
        if text in parent.node.children:
            first = parent.node.children[text][0].line
        if first is not None:
            parent.skipped = True
            where = f"on lines {first} and {line}" if first != line else f"on line {line}"
            self.report(line, f"key {text[:60]!r} is written twice, {where}; keep one")
        elif text == "<<" and plain:
            parent.merge_line = line

    def _wants_key(self) -> bool:
        return bool(self._open) and self._open[-1].mapping and self._open[-1].key is None

    def _path(self) -> tuple[Key, ...]:
        steps = (
            parent.key[0] if parent.key else None if parent.mapping else len(parent.node.children)
            for parent in self._open
        )
        return tuple(step for step in steps if step is not None)

    def _add(self, node: Node, spot: Position) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if not parent.mapping:
            parent.node.children[len(parent.node.children)] = (spot, node)
            return
        if parent.key is None:
            # Only an alias reaches this line: `_key` handles all other keys.
            raise UnreadableError(spot.line, "has an alias as a key; write a text")
        key, at = parent.key
        if parent.skipped:
            pass
        elif key == "<<" and parent.merge_line == at.line:
            self._merge(parent, node, spot.line)
        else:
            parent.node.children[key] = (at, node)
        parent.key = None

    def _merge(self, parent: _Open, node: Node, line: int) -> None:
        sources = [item for _, item in node.children.values()] if isinstance(node.value, list) else [node]
        if all(isinstance(source.value, dict) for source in sources):
            parent.merges = sources
        else:
            message = "merges a value that is not a mapping; write `<<: *name` of an anchored mapping"
            self.report(line, message)

    def _close(self) -> None:
        done = self._open.pop()
        node = done.node
        for source in done.merges:
            for key, child in source.children.items():
                node.children.setdefault(key, child)
        inner = [child for _, child in node.children.values()]
        node.weight = 1 + sum(child.weight for child in inner)
        node.depth = 1 + max((child.depth for child in inner), default=0)
        if node.weight > MAX_WEIGHT or node.depth > MAX_DEPTH:
            raise UnreadableError(
                node.spot.line, "is too large or too deep after its aliases are expanded; use fewer aliases"
            )
        node.value = (
            {key: child.value for key, (_, child) in node.children.items()}
            if done.mapping
            else [child.value for child in inner]
        )
        if done.anchor is not None:
            self._anchors[done.anchor] = node
        self._add(node, node.spot)


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """The data of one file, and the position of each part."""

    flaws: list[Diagnostic]
    """In the order of the file; if the file could not be read to its end, `data` is None."""
    root: Node | None = None

    @property
    def data(self) -> Any:
        """The content as dicts, lists, texts, numbers, booleans and None."""
        return self.root.value if self.root else None

    def line(self, path: Sequence[Key]) -> int:
        """Return the line of the key or item at `path`, or of the innermost existing one around it."""
        return self.spot(path).line

    def written(self, path: Sequence[Key]) -> str | None:
        """Return the scalar at `path` as written: `1.10`, whose value is 1.1; None if there is none."""
        node = self.root
        for step in path:
            if node is None or step not in node.children:
                return None
            node = node.children[step][1]
        return node.text if node else None

    def spot(self, path: Sequence[Key]) -> Position:
        """Return the position of the key or item at `path`, or of the innermost existing one around it."""
        node = self.root
        spot = node.spot if node else Position(1, 1)
        for step in path:
            if node is None or step not in node.children:
                break
            spot, node = node.children[step]
        return spot


def parse(raw: bytes, file: Path = Path(), tags: Container[str] = ()) -> Document:
    """Parse one YAML document; raises nothing, all problems are in the result, at their places in `file`.

    A text with one of `tags` (such as `!include`) becomes Tagged; any other tag is a problem.
    """
    builder = Builder(file, tags)
    if len(raw) > MAX_BYTES:
        builder.report(1, "is larger than 1 MiB; split it into several files")
        return Document(builder.flaws)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        builder.report(raw.count(b"\n", 0, error.start) + 1, message)
        return Document(builder.flaws)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except UnreadableError as stop:
        builder.report(stop.line, str(stop))
        return Document(builder.flaws)
    except yaml.MarkedYAMLError as error:
        return Document([*builder.flaws, of_syntax(error, text, file)])
    except yaml.reader.ReaderError as error:
        return Document([*builder.flaws, of_character(error, text, file)])
    if builder.root is None:
        builder.report(1, "is empty; write `queries:` and a list of queries below it")
    return Document(builder.flaws, builder.root)

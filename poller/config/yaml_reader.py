"""Strict YAML reader that records the position of every key.

PyYAML's constructor (YAML 1.1) silently keeps the last of two equal keys, and reads `no` as false, `12:30:00`
as 45000 and `010` as 8. This reader rejects duplicate keys, accepts only `true` and `false` as booleans (YAML
1.2, core schema) and only decimal numbers: `007`, `0x10` and `12:30:00` remain strings.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from poller.config.queries.files import MAX_BYTES
from poller.model.diagnostics import Diagnostic, Place, invalid
from poller.model.path import PathKey
from poller.model.text import quote

MAX_DEPTH = 32
MAX_WEIGHT = 100_000
"""Maximum number of values with all aliases expanded (a long text counts more). It is far above any query
file, and far below the expansion of a few nested aliases."""

_INVALID = re.compile("[\0\ud800-\udfff]")
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
    children: dict[PathKey, tuple[Position, Node]] = field(default_factory=dict)
    """Position and node of each key or item; an alias shares the node of its anchor."""
    weight: int = 1
    depth: int = 1
    text: str | None = None
    """A scalar as written; None for mappings and lists."""


class Tagged(str):
    """A text with a tag that the caller accepts, such as `!include`."""

    tag = ""


class UnreadableError(Exception):
    """The rest of the file cannot be read, from `line` on; the text is the reason."""

    def __init__(self, line: int, message: str, path: tuple[PathKey, ...] = ()) -> None:
        super().__init__(message)
        self.line = line
        self.path = path


class _NodeReader:
    """Reader of nodes from the parser's events. `MAX_DEPTH` bounds its recursion."""

    def __init__(
        self, events: Iterator[Any], file: Path, tags: Container[str], problems: list[Diagnostic]
    ) -> None:
        self._file = file
        self._events = events
        self._tags = tags
        self._problems = problems
        self._anchors: dict[str, Node | None] = {}
        """None while the anchored node is incomplete: an alias to it would contain itself."""

    def read(self) -> Node | None:
        """Return the node of the only document, None if there is none; raises UnreadableError."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    message = "begins a second document; remove the `---`, or move it to its own file"
                    raise UnreadableError(_spot(event).line, message)
                root = self._node(next(self._events), ())
        return root

    def _node(self, event: Any, path: tuple[PathKey, ...]) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._anchored(event, path)
        node = Node(_spot(event))
        anchor = event.anchor
        if isinstance(event, yaml.ScalarEvent):
            text = node.text = self._text(event, path)
            node.value = text if event.style or event.tag is not None else _plain(text)
            if event.tag in self._tags:
                node.value = Tagged(text)
                node.value.tag = event.tag
            node.weight += len(text) // 64
        else:
            self._refuse_tag(event, path)
            if len(path) >= MAX_DEPTH:
                message = f"is nested deeper than {MAX_DEPTH} levels; reduce the nesting"
                raise UnreadableError(node.spot.line, message, path)
            if anchor is not None:
                self._anchors[anchor] = None
            if isinstance(event, yaml.MappingStartEvent):
                self._read_mapping(node, path)
            else:
                self._read_list(node, path)
            children = [child for _, child in node.children.values()]
            node.weight += sum(child.weight for child in children)
            node.depth += max((child.depth for child in children), default=0)
            if node.weight > MAX_WEIGHT or node.depth > MAX_DEPTH:
                message = "is too large or too deep after its aliases are expanded; use fewer aliases"
                raise UnreadableError(node.spot.line, message, path)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _anchored(self, event: Any, path: tuple[PathKey, ...]) -> Node:
        line = _spot(event).line
        # No message contains the name, because a password may begin with * or !.
        if event.anchor not in self._anchors:
            message = "an alias (*) needs an anchor (&) above it; quote a text that begins with *"
            raise UnreadableError(line, message, path)
        node = self._anchors[event.anchor]
        if node is None:
            raise UnreadableError(line, "an alias (*) is inside its own anchor (&); remove it", path)
        return node

    def _refuse_tag(self, event: Any, path: tuple[PathKey, ...]) -> None:
        if event.tag is not None:
            message = "a tag (!) is not supported; remove it, or quote a text that begins with !"
            self._problems.append(invalid(Place(self._file, _spot(event).line, path), message))

    def _text(self, event: Any, path: tuple[PathKey, ...]) -> str:
        if event.tag not in self._tags:
            self._refuse_tag(event, path)
        text: str = event.value
        if _INVALID.search(text):
            message = "contains an invalid character (NUL, or half of a surrogate pair); omit it"
            self._problems.append(invalid(Place(self._file, _spot(event).line, path), message))
        return _INVALID.sub("", text)

    def _read_list(self, node: Node, path: tuple[PathKey, ...]) -> None:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            index = len(node.children)
            node.children[index] = (_spot(event), self._node(event, (*path, index)))
        node.value = [child.value for _, child in node.children.values()]

    def _read_mapping(self, node: Node, path: tuple[PathKey, ...]) -> None:
        merged: list[Node] = []
        merge_line: int | None = None
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, spot = self._key(event, path), _spot(event)
            merges = key == "<<" and not event.style
            first = node.children[key][0].line if key in node.children else merge_line if merges else None
            if first is not None:
                where = f"on lines {first} and {spot.line}" if first != spot.line else f"on line {spot.line}"
                message = f"key {quote(key)} is written twice, {where}; keep one"
                self._problems.append(invalid(Place(self._file, spot.line, (*path, key)), message))
            value_event = next(self._events)
            value = self._node(value_event, (*path, key))
            if first is not None:
                continue
            if not merges:
                node.children[key] = (spot, value)
                continue
            merge_line = spot.line
            merged = [value]
            if isinstance(value.value, list):
                merged = [child for _, child in value.children.values()]
            if not all(isinstance(source.value, dict) for source in merged):
                message = "merges a value that is not a mapping; write `<<: *name` of an anchored mapping"
                self._problems.append(
                    invalid(Place(self._file, _spot(value_event).line, (*path, key)), message)
                )
                merged = []
        for source in merged:
            for name, child in source.children.items():
                node.children.setdefault(name, child)
        node.value = {key: child.value for key, (_, child) in node.children.items()}

    def _key(self, event: yaml.Event, path: tuple[PathKey, ...]) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return self._text(event, path)
        kind = "a mapping or list"
        if isinstance(event, yaml.AliasEvent):
            self._anchored(event, path)
            kind = "an alias"
        else:
            self._refuse_tag(event, path)
        raise UnreadableError(_spot(event).line, f"has {kind} as a key; write a text", path)


def _spot(event: yaml.Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)


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

    problems: list[Diagnostic]
    """In the order of the file; if the file could not be read to its end, `data` is None."""
    root: Node | None = None
    """None if the file has no data or could not be read."""

    @property
    def data(self) -> Any:
        """The content as dicts, lists, texts, numbers, booleans and None."""
        return self.root.value if self.root else None

    def line(self, path: Sequence[PathKey]) -> int:
        """Return the line of the key or item at `path`, or of the innermost existing one around it."""
        return self.spot(path).line

    def written(self, path: Sequence[PathKey]) -> str | None:
        """Return the scalar at `path` as written: `1.10`, whose value is 1.1; None if there is none."""
        node = self.root
        for step in path:
            if node is None or step not in node.children:
                return None
            node = node.children[step][1]
        return node.text if node else None

    def spot(self, path: Sequence[PathKey]) -> Position:
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
    if len(raw) > MAX_BYTES:
        return Document([invalid(Place(file, 1), "is larger than 1 MiB; split it into several files")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        return Document([invalid(Place(file, raw.count(b"\n", 0, error.start) + 1), message)])
    document = Document([])
    try:
        document.root = _NodeReader(yaml.parse(text, Loader=_LOADER), file, tags, document.problems).read()
    except UnreadableError as stop:
        document.problems.append(invalid(Place(file, stop.line, stop.path), str(stop)))
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error, text, file))
    except yaml.reader.ReaderError as error:
        document.problems.append(_character_problem(error, text, file))
    return document


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: Path) -> Diagnostic:
    """Return the problem at which the parser stopped."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem, context = error.problem or "", error.context or ""
    lines = _lines(text)
    at = lines[line - 1][column - 1 : column] if line <= len(lines) else ""
    if at == "\t":
        message = "a tab cannot indent YAML; write spaces"
    elif "cannot start any token" in problem and at:
        message = f"a value cannot begin with {at}; write it in quotes"
    elif "mapping values are not allowed" in problem:
        message = "a key is not allowed here; check the indentation, or quote a text that contains `: `"
    elif "block scalar" in context:
        message = "after | or > a text begins on the next line; quote a value that begins with | or >"
    elif "scanning an alias" in context or "scanning an anchor" in context:
        message = "a value that begins with * or & names an anchor; quote a text"
    else:
        since = f", {context} that begins on line {error.context_mark.line + 1}" if error.context_mark else ""
        message = f"is not YAML: {problem}{since}"
    return invalid(Place(file, line, None, column), message)


def _character_problem(error: yaml.reader.ReaderError, text: str, file: Path) -> Diagnostic:
    """Return the problem of a character that YAML does not allow."""
    code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "\0")
    before = text[: max(text.find(chr(code)), 0)]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    message = f"contains the character U+{code:04X}, which YAML does not allow; omit it"
    return invalid(Place(file, line, None, column), message)


def _lines(text: str) -> list[str]:
    # The line breaks of YAML; str.splitlines() would also split at a form feed.
    return re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text)

"""Read YAML as data with the place of every key.

Stricter than YAML 1.1 and PyYAML's constructor, which keep the last of two equal keys without a word and
read `no` as false, `12:30:00` as 45000 and `010` as 8. Here a key stands once, `true` and `false` are the
only truth values (YAML 1.2, core schema), and a number is decimal: `007`, `0x10` and `12:30:00` stay texts.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from poller.path import Key
from poller.sources import MAX_BYTES
from poller.yamlbuilder import Builder, Node, Spot, UnreadableError
from poller.yamlflaw import Flaw, of_character, of_syntax

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """The data of one file, and where each part of it stands."""

    flaws: list[Flaw]
    """In the order found; after one that made reading on impossible, `data` is None."""
    root: Node | None = None

    @property
    def data(self) -> Any:
        """Dicts, lists, texts, numbers, truth values and None."""
        return self.root.value if self.root else None

    def line(self, path: Sequence[Key]) -> int:
        """The line of the key or item at `path`, or of the innermost one around it that exists."""
        return self.spot(path).line

    def written(self, path: Sequence[Key]) -> str | None:
        """The scalar at `path` as it is written: `1.10`, whose value is 1.1; None if there is none."""
        node = self.root
        for step in path:
            if node is None or step not in node.children:
                return None
            node = node.children[step][1]
        return node.text if node else None

    def spot(self, path: Sequence[Key]) -> Spot:
        """The place of the key or item at `path`, or of the innermost one around it that exists."""
        node = self.root
        spot = node.spot if node else Spot(1, 1)
        for step in path:
            if node is None or step not in node.children:
                break
            spot, node = node.children[step]
        return spot


def parse(raw: bytes, tags: Container[str] = ()) -> Document:
    """Read one YAML document from `raw`; raises nothing, every flaw is in the answer.

    A text behind one of `tags` (as `!include`) becomes Tagged; any other tag is a flaw.
    """
    if len(raw) > MAX_BYTES:
        return Document([Flaw(1, "is larger than 1 MiB; split it into several files")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        return Document([Flaw(raw.count(b"\n", 0, error.start) + 1, what)])
    builder = Builder(tags)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except UnreadableError as stop:
        return Document([*builder.flaws, stop.flaw])
    except yaml.MarkedYAMLError as error:
        return Document([*builder.flaws, of_syntax(error, text)])
    except yaml.reader.ReaderError as error:
        return Document([*builder.flaws, of_character(error, text)])
    if builder.root is None:
        builder.flaws.append(Flaw(1, "is empty; write `queries:` and a list of queries below it"))
    return Document(builder.flaws, builder.root)

"""YAML writer for queries, in the style of hand-written files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from poller.config.yaml_reader import parse
from poller.config.yaml_text import to_text

_WIDTH = 10_000
"""Maximum line length in characters; folding would change the user's text."""


class Pairs(dict[str, Any]):
    """Mapping that is written on one line."""


class _YamlWriter(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # lists are indented below their key, as in the shipped files
        super().increase_indent(flow, False)


def _text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # The reader of query files reads some words as numbers that PyYAML reads as texts.
    quoted = "{" in text or not isinstance(_read(text), str)
    style = "|" if "\n" in text else '"' if quoted else None
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(writer: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flat = all(isinstance(item, str | int | float) for item in items)
    return writer.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


def _pairs(writer: yaml.SafeDumper, pairs: Pairs) -> yaml.MappingNode:
    return writer.represent_mapping("tag:yaml.org,2002:map", pairs, flow_style=True)


def _read(text: str) -> Any:
    document = parse(text.encode())
    return "" if document.problems or document.root is None else document.data


_YamlWriter.add_representer(str, _text)
_YamlWriter.add_representer(list, _list)
_YamlWriter.add_representer(Pairs, _pairs)


def to_yaml(query: Mapping[str, Any], indent: int = 2) -> str:
    """Return an item of a file's `queries`, with `indent` spaces before its dash."""
    text = to_text([dict(query)], _YamlWriter, width=_WIDTH)
    margin = " " * indent
    return "".join(margin + line if line.strip() else line for line in text.splitlines(keepends=True))


def to_file(*queries: Mapping[str, Any]) -> str:
    """Return a whole query file."""
    return "queries:\n" + "\n".join(map(to_yaml, queries))

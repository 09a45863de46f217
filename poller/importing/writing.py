"""Write drafts as a query file that reads as if somebody had written it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from poller.importing.draft import DraftQuery

_ENDLESS = 10_000
"""Columns: a text that is broken over lines is hard to search for."""


class _Row(list[Any]):
    """A list that stands on one line."""


class _Pairs(dict[str, Any]):
    """A mapping that stands on one line."""


class _Writer(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # a list stands deeper than its key, as in the files that are shipped
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _row(writer: yaml.SafeDumper, row: _Row) -> yaml.SequenceNode:
    return writer.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)


def _pairs(writer: yaml.SafeDumper, pairs: _Pairs) -> yaml.MappingNode:
    return writer.represent_mapping("tag:yaml.org,2002:map", pairs, flow_style=True)


_Writer.add_representer(str, _text)
_Writer.add_representer(_Row, _row)
_Writer.add_representer(_Pairs, _pairs)


def to_yaml(drafts: Sequence[DraftQuery], head: str) -> str:
    """A query file: `head` and each query's own comment as comments, and the queries."""
    return _commented(head.splitlines()) + "queries:\n" + "\n".join(map(_query, drafts))


def _query(draft: DraftQuery) -> str:
    data = draft.data()
    if "\n" in data["sql"]:
        data["sql"] += "\n"
    text = yaml.dump([_flowing(data)], Dumper=_Writer, sort_keys=False, allow_unicode=True, width=_ENDLESS)
    return textwrap.indent(_commented(draft.comment) + text, "  ", lambda line: line != "\n")


def _flowing(value: Any, depth: int = 0) -> Any:
    """Lists of words and mappings of words on one line each."""
    if isinstance(value, Mapping):
        inner = {key: _flowing(item, depth + 1) for key, item in value.items()}
        return _Pairs(inner) if depth and not any(isinstance(one, dict) for one in value.values()) else inner
    if isinstance(value, list):
        if any(isinstance(item, Mapping) for item in value):
            return [_flowing(item) for item in value]
        return _Row(value)
    return value


def _commented(lines: Sequence[str]) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)

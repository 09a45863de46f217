"""Write drafts as a query file that reads as if somebody had written it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from poller.drafts import write
from poller.importing.draft import DraftQuery
from poller.printable import one_line


def to_yaml(drafts: Sequence[DraftQuery], head: str) -> str:
    """A query file: `head` and each query's own comment as comments, and the queries."""
    return _commented(head.splitlines()) + "queries:\n" + "\n".join(map(_query, drafts))


def _query(draft: DraftQuery) -> str:
    data = draft.data()
    if "\n" in data["sql"]:
        data["sql"] += "\n"
    text = _commented(draft.comment) + write.to_yaml(_flowing(data), indent=0)
    return textwrap.indent(text, "  ", lambda line: line != "\n")


def _flowing(value: Any, depth: int = 0) -> Any:
    """Mappings of words on one line each."""
    if isinstance(value, Mapping):
        inner = {key: _flowing(item, depth + 1) for key, item in value.items()}
        flat = depth and not any(isinstance(one, dict) for one in value.values())
        return write.Pairs(inner) if flat else inner
    return [_flowing(item) for item in value] if isinstance(value, list) else value


def _commented(lines: Sequence[str]) -> str:
    return "".join(f"# {one_line(line)}".rstrip() + "\n" for line in lines)

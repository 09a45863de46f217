"""Find where one more query fits into the text of a query file."""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

_DOCUMENT_END = re.compile(r"^\.\.\.(?:\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gap:
    """Where one more query fits."""

    at: int
    """Characters before it."""
    indent: int
    """Blanks before its dash."""
    spaced: bool
    """Whether blank lines stand between the queries."""


def gap_in(text: str) -> Gap | None:
    """Find the end of the list `queries`; None where it is no list of lines."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    at = next((number for number, (key, _) in enumerate(pairs) if key.value == "queries"), None)
    if at is None:
        return None
    key, listed = pairs[at]
    first = listed.start_mark.index
    # An alias stands for a list elsewhere; a list in brackets has no dash.
    if first < key.start_mark.index or text[first : first + 1] != "-":
        return None
    if at + 1 < len(pairs):
        end = _before_comments(text, pairs[at + 1][0].start_mark.index)
    else:
        closed = _DOCUMENT_END.search(text, first)
        end = closed.start() if closed else len(text)
    lines = text.splitlines()
    second = listed.value[1].start_mark.line if len(listed.value) > 1 else None
    spaced = second is None or not lines[second - 1].strip()
    return Gap(end, listed.start_mark.column, spaced)


def _before_comments(text: str, at: int) -> int:
    """The start of the comments and blank lines in front of what begins at `at`."""
    at = text.rfind("\n", 0, at) + 1
    while at > 0:
        start = text.rfind("\n", 0, at - 1) + 1
        line = text[start:at].strip()
        if line and not line.startswith("#"):
            break
        at = start
    return at

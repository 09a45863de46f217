"""Path into the data of a file: keys of mappings and indices of lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PathKey = str | int
"""A step into the data: a mapping's key or a list's index."""

_LONGEST_PATH = 10  # steps; the deepest key of a query file has seven


def format_path(path: Sequence[PathKey]) -> str:
    """Return a path as text: `queries[0].metrics[1].unit`."""

    def steps() -> Iterator[str]:
        for step in path[:_LONGEST_PATH]:
            if isinstance(step, int):
                yield f"[{step}]"
            elif re.fullmatch(r"[\w.-]{1,60}", step):
                yield f".{step}"
            else:
                yield f"[{step[:60]!r}]"

    text = "".join(steps()).removeprefix(".")
    return text if len(path) <= _LONGEST_PATH else f"{text}..."

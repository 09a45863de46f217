"""YAML serializer in block style."""

from __future__ import annotations

from typing import Any

import yaml

from poller.model.printable import lines


def to_text(data: Any, dumper: type[yaml.SafeDumper] = yaml.SafeDumper, *, width: int) -> str:
    """Return `data` as YAML in block style, keys in their order, lines of at most `width` columns.

    If a text holds a character that `printable` escapes, each character beyond ASCII is an escape.
    """
    for readable in (True, False):
        text: str = yaml.dump(
            data,
            Dumper=dumper,
            sort_keys=False,
            allow_unicode=readable,
            width=width,
            default_flow_style=False,
        )
        if lines(text) == text:
            break
    return text

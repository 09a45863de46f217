"""MkDocs hook that replaces links to files outside docs/, which the web site does not have, by their text."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(
    r"\[([^\]]*)\]\((?:\.\./)+(?:deploy|poller|tests|queries|CHANGELOG\.md|README\.md)[^)]*\)"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _OUTSIDE.sub(r"\1", markdown)

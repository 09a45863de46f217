"""MkDocs hook: links to files of the repository outside docs/ become links to the repository's web page."""

from __future__ import annotations

import re
from typing import Any

REPOSITORY = "https://github.com/barrelmaker97/obscura-poller/blob/main/"
_OUTSIDE = re.compile(r"\]\((?:\.\./)+(deploy|poller|tests|queries|CHANGELOG\.md|README\.md)([^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _OUTSIDE.sub(rf"]({REPOSITORY}\1\2)", markdown)

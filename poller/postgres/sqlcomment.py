"""SQL comment that names the query, so that the server's views and logs show which one runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from urllib.parse import quote

Tags = Callable[[str], Mapping[str, str]]
"""Returns the content of the SQL comment for the query with the given name."""

VISIBLE_BYTES = 1023
"""Bytes of a statement in pg_stat_activity, by default (manual, "track_activity_query_size")."""
_HINT = "/*+"
_LINE_END = "\n"


@functools.lru_cache(4096)
def _quoted(text: str) -> str:
    return quote(text, safe="")


def untagged(name: str) -> Mapping[str, str]:
    """Return no tags: no comment is added."""
    del name
    return {}


def tag_name(name: str) -> Mapping[str, str]:
    """Return the tag with the query's name."""
    return {"query": name}


def commented(sql: str, tags: Mapping[str, str]) -> str:
    """Return `sql` with `tags` in a comment of the sqlcommenter format; without tags, `sql` unchanged.

    Keys are sorted, keys and values are percent-encoded, and values are quoted, so that no value can end the
    comment (https://google.github.io/sqlcommenter/spec/). The comment follows the SQL: there it does not
    shift the positions in error messages, Pgpool-II does not send the query to the primary because it begins
    with a comment, and pg_hint_plan, which reads hints only from the first comment, still finds them. If the
    server would cut the comment off there, it precedes the SQL, unless the SQL contains a hint.
    """
    if not tags:
        return sql
    comment = ",".join([f"{_quoted(key)}='{_quoted(value)}'" for key, value in sorted(tags.items())])
    # A comment to the end of the last line must not swallow this comment.
    trailing = f"{sql}{_LINE_END if '--' in sql else ' '}/*{comment}*/"
    fits = len(trailing if trailing.isascii() else trailing.encode()) <= VISIBLE_BYTES
    return trailing if fits or _HINT in sql else f"/*{comment}*/ {sql}"

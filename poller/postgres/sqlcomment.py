"""SQL comment that names the query, so that the server's views and logs show which one runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from urllib.parse import quote

Tags = Callable[[str], Mapping[str, str]]
"""What the comment on the SQL of the query of a name says."""

SHOWN_BYTES = 1023
"""Of a statement in pg_stat_activity, by default (PostgreSQL manual, "track_activity_query_size")."""
_HINT = "/*+"
_LINE_END = "\n"


@functools.lru_cache(4096)
def _quoted(text: str) -> str:
    return quote(text, safe="")


def untagged(name: str) -> Mapping[str, str]:
    """No comment at all."""
    del name
    return {}


def commented(sql: str, tags: Mapping[str, str]) -> str:
    """`sql` with `tags` in a comment of sqlcommenter's form; without tags as it is.

    Keys are sorted, keys and values percent-encoded, values in quotes, so that nothing ends the comment, and
    it stands behind the SQL (https://google.github.io/sqlcommenter/spec/). There it moves no position that an
    error names, and is in nobody's way: Pgpool-II sends to the primary what begins with a comment, and
    pg_hint_plan looks for hints in the first one only. In front it stands where the server would not show it
    else, unless there is a hint.
    """
    if not tags:
        return sql
    told = ",".join([f"{_quoted(key)}='{_quoted(value)}'" for key, value in sorted(tags.items())])
    # What is commented out to the end of its line must not swallow this one.
    behind = f"{sql}{_LINE_END if '--' in sql else ' '}/*{told}*/"
    fits = len(behind) <= SHOWN_BYTES if behind.isascii() else len(behind.encode()) <= SHOWN_BYTES
    return behind if fits or _HINT in sql else f"/*{told}*/ {sql}"

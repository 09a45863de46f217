"""SQL text that the poller writes itself.

Every function, operator, type and relation in it is qualified with `pg_catalog`, also inside texts that
another function runs. A name without a schema is looked up along the search_path, in which another role may
have made a better match: its function would then run with the poller's rights (CVE-2018-1058). IN, BETWEEN,
NULLIF, IS DISTINCT FROM, LIKE, USING and CASE with an operand look up operators by a bare name and have no
qualified form, so they are not used. The `search_path` itself is left alone, because requirements and the
users' own SQL are resolved along it.
"""

from __future__ import annotations


def literal(text: str) -> str:
    """`text` as an SQL string, whatever standard_conforming_strings is set to."""
    prefix = "E" if "\\" in text else ""
    return prefix + "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

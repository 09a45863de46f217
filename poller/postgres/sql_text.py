"""SQL text that the poller writes itself.

Every function, operator, type and relation in it is qualified with `pg_catalog`, also inside texts that
another function runs. PostgreSQL looks up an unqualified name along the search_path. Another role may have
created a better match there, which would then run with the poller's privileges (CVE-2018-1058). IN, BETWEEN,
NULLIF, IS DISTINCT FROM, LIKE, USING and CASE with an operand look up operators by an unqualified name and
have no qualified form, so they are not used. The poller changes `search_path` only for the SQL of
queries that have this setting, because requirements and the users' own SQL are resolved along it.
"""

from __future__ import annotations


def set_config(name: str, value: object) -> str:
    """Return the call that sets the PostgreSQL setting `name` until the end of the transaction."""
    return f"pg_catalog.set_config({literal(name)}, {literal(str(value))}, true)"


def literal(text: str) -> str:
    """Return `text` as an SQL string constant, valid for any setting of standard_conforming_strings."""
    prefix = "E" if "\\" in text else ""
    return prefix + "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

"""Diagnosis of the list of databases of a server: which become targets, and which do not."""

from __future__ import annotations

from collections.abc import Iterable

from poller.model.diagnostics import Diagnostic
from poller.model.target import Databases
from poller.model.text import list_names
from poller.postgres.database_list import DatabaseList


def examine(listed: DatabaseList, declared: Databases) -> Diagnostic:
    """Return the finding about a list; it has the first names of each state."""
    counts = listed.counts
    parts = [
        _part(counts["polled"], "polled", listed.polled),
        _part(counts["excluded"], "excluded", listed.excluded),
        _part(counts["over_limit"], f"above the limit of {declared.limit}", listed.over_limit),
        _part(counts["no_privilege"], "without the privilege CONNECT", listed.no_privilege),
    ]
    message = "; ".join(part for part in parts if part) or "the server has no database that can be polled"
    advice = []
    if not listed.polled:
        advice.append("check include and exclude of `databases`")
    if counts["over_limit"]:
        advice.append("raise `databases.limit`, or exclude some")
    if counts["no_privilege"]:
        advice.append("GRANT CONNECT ON DATABASE ... TO the role, or exclude them")
    return Diagnostic(
        "note" if listed.polled and not counts["over_limit"] else "warning",
        "databases",
        message,
        "; ".join(advice) or None,
        facts={str(state): count for state, count in counts.items()},
    )


def _part(count: int, state: str, names: Iterable[str]) -> str:
    if not count:
        return ""
    return f"{count} {state}{': ' if (text := list_names(names)) else ''}{text}"

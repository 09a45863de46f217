"""Explanation of a failed database connection, and its fix."""

from __future__ import annotations

from poller.model.errors import PollError
from poller.postgres.sqlstate import connection_advice
from poller.tools.doctor.finding import Finding


def unreachable(error: PollError, place: str) -> Finding:
    """Finding for a failed connection; `place` is the connection string without its secrets."""
    return Finding(
        "database",
        "fail",
        f"{place}: {error.message}",
        connection_advice(error.message)
        or error.hint
        or "correct POLLER_DATABASE_URL, or fix the network to the server",
        facts={"error": error.kind, "sqlstate": error.sqlstate},
    )

"""Tell by the beginning of a connection string whether it leads to PostgreSQL; the rest is not looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_POSTGRESQL = {"postgres", "postgresql", "pgx", "pg", "pq", "rds-postgres", "cloudsql-postgres"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\+[A-Za-z0-9_]+)?://")


def others(connections: Iterable[Any]) -> list[str]:
    """What all of `connections` lead to, where none leads to PostgreSQL or cannot be told; else nothing."""
    schemes = [_scheme(one) for one in connections]
    if any(scheme is None or scheme in _POSTGRESQL for scheme in schemes):
        return []
    return sorted({scheme for scheme in schemes if scheme})


def _scheme(connection: Any) -> str | None:
    if isinstance(connection, dict):
        connection = f"{connection.get('dialect', '')}://"
    match = _SCHEME.match(connection) if isinstance(connection, str) else None
    return match[1].lower() if match else None

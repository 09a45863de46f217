"""Names, units, drivers and version requirements of imported queries."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any

from poller.model.units import unit_instead, unit_problem

_DRIVERS = {"postgres", "postgresql", "pgx", "pg", "pq"}
_POSTGRESQL = {*_DRIVERS, "rds-postgres", "cloudsql-postgres"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\+[A-Za-z0-9_]+)?://")


def other_databases(connections: Iterable[Any]) -> list[str]:
    """Return the schemes of `connections` if none is PostgreSQL or unknown; otherwise an empty list."""
    schemes = [_scheme(connection) for connection in connections]
    if any(scheme is None or scheme in _POSTGRESQL for scheme in schemes):
        return []
    return sorted({scheme for scheme in schemes if scheme})


def _scheme(connection: Any) -> str | None:
    if isinstance(connection, dict):
        connection = f"{connection.get('dialect', '')}://"
    match = _SCHEME.match(connection) if isinstance(connection, str) else None
    return match[1].lower() if match else None


def libpq_scheme(conninfo: str) -> str:
    """Return a URI of a PostgreSQL driver, such as `postgresql+psycopg2://...`, with libpq's own scheme."""
    match = _SCHEME.match(conninfo)
    if match is None or match[1].lower() not in _DRIVERS:
        return conninfo
    return f"postgresql://{conninfo[match.end() :]}"


_UNITS = {
    "seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns", "minutes": "min",
    "hours": "h", "days": "d", "bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy",
    "megabytes": "MBy", "gigabytes": "GBy", "ratio": "1", "percent": "%",
    "celsius": "Cel",
}  # fmt: skip
"""Unit suffixes of Prometheus names (Prometheus documentation, "Metric and label naming")."""
_AFTER_THE_UNIT = {"total", "sum", "max", "min", "avg"}


def metric_name(original: str) -> str:
    """Return the nearest valid name for a metric; empty if no valid character is left."""
    return re.sub(r"[^a-z0-9_.]", "_", original.lower()).lstrip("_.0123456789")[:255]


def query_name(name: str, existing: Container[str]) -> str:
    """Return the nearest valid name for a query that is not in `existing`."""
    valid = re.sub(r"[^a-z0-9_.-]", "_", name.lower()).lstrip("_.-0123456789")[:58] or "query"
    return _unique(valid, existing)


def target_name(name: str, existing: Container[str]) -> str:
    """Return the nearest valid name for a target or a tag that is not in `existing`."""
    valid = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-")[:57]
    return _unique(valid or "target", existing)


def _unique(name: str, existing: Container[str]) -> str:
    number = 2
    unique = name
    while unique in existing:
        unique, number = f"{name}_{number}", number + 1
    return unique


def unit_of(name: str) -> str:
    """Return the unit in the name of a Prometheus metric; empty if it contains none."""
    words = [word for word in name.lower().split("_") if word]
    while words and words[-1] in _AFTER_THE_UNIT:
        words.pop()
    return _UNITS.get(words[-1], "") if words else ""


def unit_like(unit: str) -> str | None:
    """Return `unit` in UCUM notation; None if its meaning is unknown."""
    if not unit_problem(unit):
        return unit
    if replacement := unit_instead(unit):
        return replacement
    if re.fullmatch(r"[A-Za-z][A-Za-z_ -]*", unit):
        return "{" + re.sub(r"[ -]+", "_", unit.strip()) + "}"
    return None


_TERM = re.compile(r"(>=|<=|>|<|==|=|)\s*v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_OLDEST = 10
"""Oldest major version with a single number; older servers are not polled."""


def version_range(least: int | None, below: int | None) -> str | None:
    """Return the version range [`least`, `below`), both as `server_version_num` (140005 is 14.5)."""
    parts = [f">={_format_version(least)}"] if least and least // 10000 >= _OLDEST else []
    parts += [f"<{_format_version(max(below, _OLDEST * 10000))}"] if below else []
    return ",".join(parts) or None


def from_semver(text: str) -> str | None:
    """Convert a range like `>=9.6.0 <15.0.0` of semantic versions; None if `requires:` cannot express it."""
    parts: list[str] = []
    for word in re.sub(r"([<>=])\s+", r"\1", text).split():
        match = _TERM.fullmatch(word)
        if match is None:
            return None
        sign, major, minor = match[1] or "==", int(match[2]), int(match[3] or 0)
        sign = "==" if sign == "=" else sign
        if major < _OLDEST:
            parts += [] if sign.startswith(">") else [f"<{_OLDEST}"]
        elif minor == 0 and sign in (">=", "<"):
            parts.append(f"{sign}{major}")
        else:
            parts.append(f"{sign}{major}.{minor}")
    return ",".join(parts)


def _format_version(number: int) -> str:
    major, minor = divmod(number, 10000)
    return f"{major}.{minor}" if minor else str(major)

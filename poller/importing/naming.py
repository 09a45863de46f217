"""Name what is imported so that it reaches Prometheus under the name that it had."""

from __future__ import annotations

import re
from collections.abc import Container

from poller.units import unit_instead, unit_problem

_UNITS = {
    "seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns", "minutes": "min",
    "hours": "h", "days": "d", "bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy",
    "kilobytes": "kBy", "megabytes": "MBy", "gigabytes": "GBy", "ratio": "1", "percent": "%",
    "celsius": "Cel",
}  # fmt: skip
"""The units that a Prometheus name ends in (Prometheus documentation, "Metric and label naming")."""
_BEHIND_THE_UNIT = {"total", "sum", "max", "min", "avg"}


def metric_name(original: str) -> str:
    """The nearest name that a query file may give a metric; empty where nothing is left of it."""
    return re.sub(r"[^a-z0-9_.]", "_", original.lower()).lstrip("_.0123456789")[:255]


def query_name(wanted: str, taken: Container[str]) -> str:
    """The nearest name that a query file may give a query, and that is none of `taken`."""
    name = re.sub(r"[^a-z0-9_.-]", "_", wanted.lower()).lstrip("_.-0123456789")[:58] or "query"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def unit_of(name: str) -> str:
    """The unit that the name of a Prometheus metric states; no unit where it states none."""
    words = [word for word in name.lower().split("_") if word]
    while words and words[-1] in _BEHIND_THE_UNIT:
        words.pop()
    return _UNITS.get(words[-1], "") if words else ""


def unit_like(unit: str) -> str | None:
    """`unit` as UCUM writes it; None where nobody can know what is meant."""
    if not unit_problem(unit):
        return unit
    if known := unit_instead(unit):
        return known
    if re.fullmatch(r"[A-Za-z][A-Za-z_ -]*", unit):
        return "{" + re.sub(r"[ -]+", "_", unit.strip()) + "}"
    return None

"""Durations as query files write them, such as `5m` or `1h30m`."""

from __future__ import annotations

import math
import re

from poller.model.text import quote

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?\s*(?:ms|s|m|h|d)\s*)+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
SECONDS_ALONE = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_A_DURATION = "write one like 30s, 5m or 1h30m"


def parse_duration(value: object) -> object:
    """Convert `5m`, `90s`, `1h30m` or a plain number of seconds to seconds.

    Raises ValueError (which pydantic reports at its key) for anything else.
    """
    seconds = math.nan
    if isinstance(value, str):
        text = value.strip()
        if DURATION.fullmatch(text):
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        elif SECONDS_ALONE.fullmatch(text):
            seconds = float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        seconds = float(value)
    if math.isfinite(seconds):
        return seconds
    if value is None or value == "":
        raise ValueError(f"is empty; {_A_DURATION}")
    raise ValueError(f"{quote(value)} is not a duration; {_A_DURATION}")


def format_duration(seconds: float) -> str:
    """Format seconds as in a query file: 300 -> `5m`, 5400 -> `1h30m`, 0.25 -> `250ms`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    text, rest = "", seconds
    for unit in ("d", "h", "m") if seconds >= 2 * _SECONDS["d"] else ("h", "m"):
        count = int(rest // _SECONDS[unit]) if rest > 0 else 0
        if count:
            text, rest = f"{text}{count}{unit}", rest - count * _SECONDS[unit]
    return text if text and rest < 0.0005 else f"{text}{rest:g}s"

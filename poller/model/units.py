"""Validation of units (UCUM, case-sensitive), and suggestions for a correct one."""

from __future__ import annotations

import re

from poller.model.text import quote

_METRIC = ("", "n", "u", "m", "c", "d", "k", "M", "G", "T", "P")
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi")
_DATA = ("By", "bit")
_ATOMS = ("s", "Hz", "m", "g", "J", "W", "V", "A", "Cel", "K", "L", "Pa", "N", "mol", "cd", "Ohm", "F")
_UNITS = (
    {"1", "%", "min", "h", "d", "wk", "mo", "a", "deg"}
    | {prefix + atom for prefix in _METRIC for atom in _ATOMS + _DATA}
    | {prefix + atom for prefix in _BINARY for atom in _DATA}
)
_BY_CASE = sorted(_UNITS, key=str.swapcase)  # lower case first: MS more probably means ms than Ms
_ANNOTATION = re.compile(r"\{[!-z|~][ -z|~]*\}")  # printable ASCII except braces, as in UCUM

_INSTEAD = {
    "byte": "By", "bytes": "By", "b": "By", "by": "By", "kb": "kBy", "mb": "MBy", "gb": "GBy", "tb": "TBy",
    "kib": "KiBy", "mib": "MiBy", "gib": "GiBy", "tib": "TiBy", "bits": "bit",
    "second": "s", "seconds": "s", "sec": "s", "secs": "s", "minute": "min", "minutes": "min", "mins": "min",
    "hour": "h", "hours": "h", "hr": "h", "day": "d", "days": "d", "week": "wk", "weeks": "wk",
    "millisecond": "ms", "milliseconds": "ms", "msec": "ms", "microsecond": "us", "microseconds": "us",
    "nanosecond": "ns", "nanoseconds": "ns", "percent": "%", "pct": "%", "ratio": "1", "celsius": "Cel",
    "hertz": "Hz",
}  # fmt: skip


def unit_problem(unit: str) -> str | None:
    """Return the problem of `unit` and its fix; None if the unit is valid.

    Valid units are UCUM's common units with their prefixes, `1`, an annotation such as `{message}`, quotients
    of those, and the empty text for no unit. Source: OpenTelemetry semantic conventions, general/metrics.md,
    "Instrument units"; at most 63 ASCII characters (metrics API specification, "Instrument unit").
    """
    if len(unit) > 63:
        return f"has {len(unit)} characters; OpenTelemetry allows 63"
    if unit == "" or all(_is_term(term) for term in _terms(unit)):
        return None
    lower = unit.lower()
    if instead := unit_instead(unit):
        return f"{quote(unit)} is not a UCUM unit; write {instead!r}"
    if re.fullmatch(r"[A-Za-z][A-Za-z_ -]*", unit):
        return (
            f"{quote(unit)} is not a UCUM unit; for a count of things write the thing in braces: "
            f"'{{{_singular(lower)}}}'"
        )
    return f"{quote(unit)} is not a UCUM unit; write one like 'By', 's', '%', '1' or '{{message}}'"


def unit_instead(unit: str) -> str | None:
    """Return the UCUM unit for a word such as `bytes`, or for a unit in the wrong case; None if unknown."""
    lower = unit.lower()
    return _INSTEAD.get(lower) or next(
        (candidate for candidate in _BY_CASE if candidate.lower() == lower), None
    )


def _terms(unit: str) -> list[str]:
    # A slash inside braces belongs to the annotation.
    return re.split(r"/(?![^{]*\})", unit)


def _is_term(term: str) -> bool:
    bare = _ANNOTATION.sub("", term, count=1)
    return bare in _UNITS or (bare == "" and term != "")


def _singular(words: str) -> str:
    noun = re.sub(r"[ -]+", "_", words.strip())
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    return noun if noun.endswith(("ss", "us", "is")) or len(noun) < 3 else noun.removesuffix("s")


_MEASURES = {
    "size": "By", "age": "s", "lag": "s", "delay": "s", "duration": "s", "uptime": "s", "elapsed": "s",
    "latency": "s", "ms": "ms", "us": "us", "ns": "ns", "share": "1", "fraction": "1", "temperature": "Cel",
}  # fmt: skip


def guessed_unit(name: str, thing: str) -> str:
    """Return the probable unit of a column: `By` for `stored_bytes`, `s` for `oldest_age`.

    If no word of `name` is a measure, the column counts things: `{message}` for the `thing` messages.
    """
    words = [word for word in name.lower().split("_") if word not in ("b", "by")]
    units = (_MEASURES.get(word) or _INSTEAD.get(word) for word in reversed(words))
    unit = next(filter(None, units), f"{{{_singular(thing.lower())}}}")
    return "{row}" if unit_problem(unit) else unit

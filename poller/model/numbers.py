"""Exact numbers from PostgreSQL's text output, and the reasons why a value is not exportable."""

from __future__ import annotations

import math
from decimal import Context, Decimal, InvalidOperation

# Object identifiers of the built-in types never change (PostgreSQL: src/include/catalog/pg_type.dat).
_INTEGERS = {20, 21, 23, 26}
_FLOATS = {700, 701}
_NUMERIC = 1700
NUMBERS = _INTEGERS | _FLOATS | {_NUMERIC}
"""OIDs of the numeric types: bigint, smallint, integer, oid, real, double precision, numeric."""

Number = int | float | Decimal

_LEAST, _GREATEST = -(2**63), 2**63 - 1
_WIDE = Context(prec=60)


class NotRepresentableError(Exception):
    """A value that OpenTelemetry cannot represent as a number; its argument is the reason that is counted."""


def parse(raw: bytes, oid: int) -> Number:
    """Return the exact value of the text `raw` of a numeric type.

    Raises NotRepresentableError: `nan`, `infinite`, or `not_a_number` for text that a server never writes.
    """
    try:
        if oid in _INTEGERS:
            return int(raw)
        number = float(raw) if oid in _FLOATS else Decimal(raw.decode("ascii"))
    except (ValueError, InvalidOperation):
        raise NotRepresentableError("not_a_number") from None
    if number.is_nan() if isinstance(number, Decimal) else math.isnan(number):
        raise NotRepresentableError("nan")
    if math.isinf(number):
        raise NotRepresentableError("infinite")
    return number


def otlp_number(number: Number) -> int | float:
    """Return the OTLP value: an integer if it is integral and fits 64 bits, otherwise the nearest double.

    Raises NotRepresentableError (`infinite`) if the value exceeds the range of a double.
    """
    if isinstance(number, float):
        if not math.isfinite(number):
            raise NotRepresentableError("infinite")
        return number
    if _LEAST <= number <= _GREATEST and number == int(number):
        return int(number)  # sum(bigint) is numeric, and a count must stay an integer
    try:
        nearest = float(number)
    except OverflowError:
        raise NotRepresentableError("infinite") from None
    if math.isinf(nearest):
        raise NotRepresentableError("infinite")
    return nearest


def is_representable(value: object) -> bool:
    """Return whether OTLP can represent `value`: an integer within 64 bits or a finite double."""
    if isinstance(value, int):
        return not isinstance(value, bool) and _LEAST <= value <= _GREATEST
    return isinstance(value, float) and math.isfinite(value)


def add(first: Number, second: Number) -> Number:
    """Return the sum: exact for integers, 60 digits for numeric, a double if either value is a double."""
    if isinstance(first, float) or isinstance(second, float):
        return float(first) + float(second)
    if isinstance(first, Decimal) or isinstance(second, Decimal):
        return _WIDE.add(Decimal(first), Decimal(second))
    return first + second

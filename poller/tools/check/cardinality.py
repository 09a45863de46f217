"""Check for columns with too many values for an attribute (high cardinality).

`check`, `try` and `new` share it. Unlike `rules`, it does not import psycopg, so that shell completion of
`new`, which imports this module, stays quick.
"""

from __future__ import annotations

from poller.model.numbers import NUMBERS
from poller.model.rows import Column
from poller.postgres.inspect_relations import Type

_INTEGERS = {20, 21, 23, 26}
_TIMES = {"D", "T"}
_ARRAYS_AND_SHAPES = {"A", "G"}
_MANY_TYPES = {"json", "jsonb", "xml", "bytea"}


def many_values(column: Column, kind: Type) -> str | None:
    """Why a column creates too many series as an attribute, and what to write instead; otherwise None."""
    if kind.category in _TIMES:
        advice = f"round it with date_trunc, or make it a value: extract(epoch FROM {column.name})"
    elif kind.category in _ARRAYS_AND_SHAPES or kind.name in _MANY_TYPES:
        advice = "select the part that distinguishes the series"
    elif column.oid in NUMBERS - _INTEGERS:
        advice = "round it, or make it a value column"
    else:
        return None
    return (
        f"attribute column {column.name!r} is {kind.name}, and each value creates a separate series; {advice}"
    )

"""Parameters of a query: names, values, and the combinations with which its statement runs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from poller.config.attributes import AS_VALUE, attribute_name, attribute_value
from poller.config.fields import raise_all, whole
from poller.model.query import AttributeValue
from poller.model.text import kind_of, quote, value_text

MAX_PARAMETERS = 9
"""A placeholder $1 to $9 is never longer than the parameter it replaces."""
MAX_COMBINATIONS = 1000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_EXAMPLE = "write for example `parameters: {state: [queued, sent]}`"

_NAMES = {"propertyNames": {"pattern": whole(_NAME, unless="__")}, "maxProperties": MAX_PARAMETERS}
_OBJECT = {"type": "object", "minProperties": 1, **_NAMES}
_VALUES = {"type": "array", "items": AS_VALUE, "minItems": 1, "uniqueItems": True}
_SCHEMA = {
    "anyOf": [
        {**_OBJECT, "additionalProperties": _VALUES},
        {
            "type": "array",
            "items": {**_OBJECT, "additionalProperties": AS_VALUE},
            "minItems": 1,
            "maxItems": MAX_COMBINATIONS,
            "uniqueItems": True,
        },
    ]
}


def parameter_names(value: object) -> tuple[str, ...]:
    """Return the valid names in the `parameters` of a query, which may be invalid otherwise."""
    if isinstance(value, list) and value:
        value = value[0]
    return tuple(filter(_is_name, value)) if isinstance(value, dict) else ()


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _combinations(value: object) -> list[dict[str, AttributeValue]]:
    """Return one mapping for each run of the statement; raises ProblemsError with all problems."""
    if not value or not isinstance(value, dict | list):
        raise ValueError(f"is {'empty' if value in (None, '', [], {}) else kind_of(value)}; {_EXAMPLE}")
    listed = _problems(value) if isinstance(value, dict) else _set_problems(value)
    raise_all(map(ValueError, listed))
    if isinstance(value, list):
        runs = [{name: values[name] for name in value[0]} for values in value]
    else:
        runs = [dict(zip(value, values, strict=True)) for values in itertools.product(*value.values())]
    seen: set[tuple[object, ...]] = set()
    for run in runs:
        # 1 and '1' are the same to the server and to Prometheus; 0 and false are to the SDK.
        keys = {tuple(run.values()), tuple(map(value_text, run.values()))}
        if not seen.isdisjoint(keys):
            again = ", ".join(f"{name} {quote(item)}" for name, item in run.items())
            raise ValueError(f"has {again} twice, as text or as number; keep one")
        seen |= keys
    return runs


DeclaredParameters = Annotated[
    tuple[Mapping[str, AttributeValue], ...], BeforeValidator(_combinations), WithJsonSchema(_SCHEMA)
]
"""One mapping for each run; written as a list of them, or as a list of values for each parameter."""


def _problems(parameters: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the problems of a mapping of lists."""
    yield from _name_problems(parameters)
    for name, values in parameters.items():
        if not isinstance(values, list):
            yield f"{name!r} is {kind_of(values)}, not a list; {_EXAMPLE}"
        elif not values:
            yield f"{name!r} has no values; list at least one, or remove it"
        else:
            yield from _value_problems(name, values)
    yield from _too_many(math.prod(len(values) for values in parameters.values() if isinstance(values, list)))


def _set_problems(sets: Sequence[Any]) -> Iterator[str]:
    """Yield the problems of a list of combinations."""
    yield from _too_many(len(sets))
    first = sets[0]
    for number, values in enumerate(sets[:MAX_COMBINATIONS], 1):
        if not isinstance(values, dict) or not values:
            yield f"item {number} is {kind_of(values)}; write for example `- {{state: queued}}`"
            continue
        if number == 1:
            yield from _name_problems(values)
        elif isinstance(first, dict) and first and values.keys() != first.keys():
            yield f"item {number} has other names than item 1 ({', '.join(map(str, first))}); write the same"
            continue
        for name, value in values.items():
            yield from _value_problems(name, [value])


def _name_problems(names: Mapping[Any, Any]) -> Iterator[str]:
    if len(names) > MAX_PARAMETERS:
        yield f"has {len(names)} parameters; write at most {MAX_PARAMETERS}"
    for name in names:
        if not _is_name(name):
            yield (
                f"{quote(name)} is not a parameter name; write letters, digits and _, "
                "starting with a letter or _, at most 63"
            )
        else:
            try:
                attribute_name(name)
            except ValueError as error:
                yield str(error)


def _value_problems(name: object, values: Sequence[Any]) -> Iterator[str]:
    for value in values:
        if value is None:
            yield f"a value of {name!r} is empty; write '' for an empty text"
        elif not isinstance(value, str | bool | int | float):
            yield f"a value of {name!r} is {kind_of(value)}; write a text, number or boolean"
        else:
            try:
                attribute_value(value)
            except ValueError as error:
                yield f"a value of {name!r} {error}"


def _too_many(combinations: int) -> Iterator[str]:
    if combinations > MAX_COMBINATIONS:
        yield f"has {combinations} combinations; write at most {MAX_COMBINATIONS}, or several queries"

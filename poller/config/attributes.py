"""Names and values of attributes that OTLP and Prometheus can carry."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from poller.config.fields import whole
from poller.model.query import MAX_ATTRIBUTE_LENGTH, AttributeValue
from poller.model.text import quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,254}")
AS_ATTRIBUTE = whole(_NAME, unless="_[._]")
"""JSON Schema pattern of a name."""


def attribute_name(name: str, remedy: str = "rename it") -> str:
    """Return a name that can be exported; raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{quote(name)} is not an attribute name; write letters, digits, _ and ., "
            f"starting with a letter or _, or {remedy}"
        )
    if label(name).startswith("__"):
        raise ValueError(f"{name!r} begins with __, which Prometheus reserves; {remedy}")
    return name


def label(name: str) -> str:
    """Return the label that the OTLP-to-Prometheus translation makes of an attribute."""
    return name.replace(".", "_")


def same_labels(names: Iterable[str]) -> Iterator[ValueError]:
    """Yield a problem for each name whose label another name has."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(label(name), name)) != name:
            yield ValueError(f"{other!r} and {name!r} become the same label in Prometheus; rename one")


def attribute_value(value: AttributeValue) -> AttributeValue:
    """Return a value that can be exported; raises ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"is {value}, which cannot be exported; write a text")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("is an integer beyond 64 bits; write it in quotes")
    if isinstance(value, str) and len(value) > MAX_ATTRIBUTE_LENGTH:
        raise ValueError(f"has {len(value)} characters; write at most {MAX_ATTRIBUTE_LENGTH}")
    return value


ColumnName = Annotated[str, AfterValidator(lambda name: attribute_name(name, "rename the column with AS"))]
AttributeName = Annotated[str, AfterValidator(attribute_name)]
AS_VALUE = {"type": ["string", "number", "boolean"], "maxLength": MAX_ATTRIBUTE_LENGTH}
"""JSON Schema of a value."""
FixedValue = Annotated[AttributeValue, AfterValidator(attribute_value), WithJsonSchema(AS_VALUE)]

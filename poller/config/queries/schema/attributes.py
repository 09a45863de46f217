"""Names and values of attributes that OTLP and Prometheus can carry."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from poller.config.queries.schema.fields import whole
from poller.model.query import AttributeValue
from poller.model.text import quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,254}")
AS_ATTRIBUTE = whole(_NAME, unless="_[._]")
"""JSON Schema pattern of a name."""


def labels(names: Iterable[str], remedy: str = "rename it") -> dict[str, str]:
    """Map each label that the OTLP-to-Prometheus translation produces to its attribute; raises ValueError."""
    named: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{quote(name)} is not an attribute name; write letters, digits, _ and ., "
                f"starting with a letter or _, or {remedy}"
            )
        if name.replace(".", "_").startswith("__"):
            raise ValueError(f"{name!r} begins with __, which Prometheus reserves; {remedy}")
        first = named.setdefault(name.replace(".", "_"), name)
        if first != name:
            raise ValueError(same_label(first, name))
    return named


def same_label(first: str, second: str) -> str:
    """Return the message for two attributes with the same label."""
    return f"{first!r} and {second!r} become the same label in Prometheus; rename one"


def check_values(attributes: Mapping[str, AttributeValue]) -> None:
    """Raise ValueError for a value that cannot be exported."""
    for name, value in attributes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"attribute {name!r} is {value}, which cannot be exported; write a text")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"attribute {name!r} is an integer beyond 64 bits; write it in quotes")

"""Attributes of OTLP as Python's own values."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Attribute = str | bool | int | float | bytes | None | list["Attribute"] | dict[str, "Attribute"]


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Attribute]:
    """The attributes by their names; of equal names the last one."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> Attribute:
    """One value, exactly as it was sent; None where none was."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    found: Attribute = getattr(value, which)
    return found

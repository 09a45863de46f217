"""Identity of a series: its attributes as Prometheus compares them."""

from __future__ import annotations

from collections.abc import Mapping

from poller.model.query import AttributeValue

Key = tuple[tuple[str, AttributeValue], ...]
"""Attributes in the order of their names."""


def key_of(attributes: Mapping[str, AttributeValue]) -> Key:
    """What tells one series of a metric from another; to Prometheus an empty attribute is none."""
    if not attributes:
        return ()
    items = [item for item in attributes.items() if item[1] != ""]
    items.sort()
    return tuple(items)


def fixed_series(attributes: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """What fixed attributes add to the identity of a series; an empty one adds nothing, as in Prometheus."""
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in attributes.items()
    }
    return frozenset((name, text) for name, text in texts.items() if text)

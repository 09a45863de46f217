"""Identity of a series: its attributes as Prometheus compares them."""

from __future__ import annotations

from collections.abc import Mapping

from poller.model.query import AttributeValue

Key = tuple[tuple[str, AttributeValue], ...]
"""Attributes, sorted by name."""


def key_of(attributes: Mapping[str, AttributeValue]) -> Key:
    """Return the identity of a series within its metric; Prometheus ignores empty attributes."""
    if not attributes:
        return ()
    items = [item for item in attributes.items() if item[1] != ""]
    items.sort()
    return tuple(items)


def fixed_series(attributes: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """Return the fixed attributes of a series' identity, as text; empty ones are omitted as in Prometheus."""
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in attributes.items()
    }
    return frozenset((name, text) for name, text in texts.items() if text)

"""Scrubber of attributes: removal of client identities and credentials."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from poller.events._privacy.names import OWN, PEER, TEMPLATES, personal_name
from poller.events._privacy.patterns import scrub
from poller.events._privacy.texts import LONGEST, REDACTED, well_formed
from poller.model.printable import text_of

_PLAIN = frozenset({int, float, bool, type(None)})
_LISTS = frozenset({list, tuple})
_DEEPEST = 8
"""Maximum nesting depth of a value, because a value can be circular."""
_MOST = 1_000
"""Maximum number of items of a list or a mapping, because clients can send long ones."""
_MOST_IN_ALL = 2_000
"""Maximum number of items of all values of a record: a value may contain the same list many times."""
_LONGEST_IN_ALL = 2 * LONGEST
"""Maximum number of characters of all values of a record."""
_SHORT = 64
"""Length up to which a text always fits: one long text must not displace the short ones after it."""
_CUT = "..."
"""Replaces a value that is nested too deeply or exceeds the limits of the record."""
_LONGEST_NAME = 256
"""Maximum length of a name in characters; names in a mapping may come from a client."""


class _Budget:
    """Limit of the work for one record."""

    def __init__(self) -> None:
        self._items, self._characters = _MOST_IN_ALL, _LONGEST_IN_ALL

    def items(self, number: int) -> int:
        """Return how many of `number` items may be examined."""
        number = min(number, _MOST, self._items)
        self._items -= number
        return number

    def scrub(self, text: str) -> str:
        """Return the scrubbed text, or `...` if the text exceeds the remaining characters."""
        length = 0 if len(text) <= _SHORT else min(len(text), LONGEST)
        if length > self._characters:
            return _CUT
        self._characters -= length
        return scrub(text)


def scrub_attributes(attributes: Mapping[str, Any], *, outgoing: bool = False) -> dict[str, Any]:
    """Return the attributes that may leave the process: without denied names, with scrubbed texts.

    `outgoing`: the attributes belong to a span of kind client or producer, whose peer is a called service.
    """
    budget = _Budget()
    return {
        budget.scrub(name): _well_formed(value)
        if _is_exempt(name, outgoing=outgoing)
        else _scrub(value, budget)
        for name, value in islice(attributes.items(), budget.items(len(attributes)))
        if not is_denied(name, outgoing)
    }


def is_harmless(attributes: Mapping[str, Any], *, outgoing: bool = False) -> bool:
    """Return whether no attribute needs scrubbing, as in most cases; this is faster than scrubbing."""
    budget = _Budget()
    if budget.items(len(attributes)) < len(attributes):
        return False
    for name, value in attributes.items():
        if is_denied(name, outgoing) or budget.scrub(name) != name:
            return False
        kind = type(value)
        if kind is str:
            if budget.scrub(value) == value:
                continue
            if not _is_exempt(name, outgoing=outgoing) or well_formed(value) != value:
                return False
        elif kind not in _PLAIN and _scrub(value, budget) != value:
            return False
    return True


def scrub_value(value: Any) -> Any:
    """Scrub the texts in a value down to a depth of 8; numbers stay unchanged. Never raises.

    At most 1,000 items of each list or mapping are kept, and 2,000 items and 65,536 characters in total.
    """
    return _scrub(value, _Budget())


def _scrub(value: Any, budget: _Budget, depth: int = 0) -> Any:
    if isinstance(value, str):
        return budget.scrub(value)
    if isinstance(value, bytes):
        return budget.scrub(value[:LONGEST].decode("utf-8", "replace"))
    if not isinstance(value, Mapping | tuple | list):
        return value
    if depth == _DEEPEST:
        return _CUT
    try:
        if isinstance(value, Mapping):
            return {
                budget.scrub(name) if isinstance(name, str) else name: _scrub(item, budget, depth + 1)
                for name, item in islice(value.items(), budget.items(len(value)))
                if not is_denied(name)
            }
        if type(value) in _LISTS:
            most = budget.items(len(value))
            return type(value)(_scrub(item, budget, depth + 1) for item in islice(value, most))
    except Exception:  # noqa: BLE001 - a foreign mapping, or one that another thread changes
        return REDACTED
    return budget.scrub(text_of(value))


def is_denied(name: Any, outgoing: bool = False) -> bool:
    """Return whether an attribute of this name must not leave the process, whatever its value."""
    text = name if isinstance(name, str) else text_of(name)
    if len(text) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2  # both its prefix and its last word count
        text = text[:half] + text[-half:]
    return personal_name(text, outgoing=outgoing)


def _well_formed(value: Any) -> Any:
    return well_formed(value) if isinstance(value, str) else value


def _is_exempt(name: str, *, outgoing: bool) -> bool:
    """Return whether the value is a route template, or an address of the server or of a called service."""
    return name in OWN or name in TEMPLATES or (outgoing and name in PEER)

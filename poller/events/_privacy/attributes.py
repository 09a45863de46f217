"""Scrubber of attributes: removal of client identities and credentials."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from poller.events._privacy.names import OWN, PEER, TEMPLATES, personal_name
from poller.events._privacy.patterns import LONGEST, REDACTED, scrub, text_of, well_formed

_SECRETS = (
    *("_token", "_secret", "_password", "_passwd", "_cookie", "_api_key", "_signature", "_credentials"),
    *("_otp", "_pin"),
)
"""Endings of names. `gen_ai.usage.input_tokens`, a number, has another."""
_PLAIN = frozenset({int, float, bool, type(None)})
_LISTS = frozenset({list, tuple})
_DEEPEST = 8
"""Levels of a value; it may be a circle."""
_MOST = 1_000
"""Items of a list or a mapping that are kept: clients can send long ones."""
_MOST_IN_ALL = 2_000
"""Items within all values of a record that are kept: a value may hold the same list many times."""
_LONGEST_IN_ALL = 2 * LONGEST
"""Characters within all values of a record that are kept."""
_SHORT = 64
"""Characters of a text that always fits: one long text must not displace the short ones after it."""
_CUT = "..."
"""In place of a value that is too deep, or too much with the values before it."""
_LONGEST_NAME = 256
"""Characters of a name that is kept; names of a mapping may come from a client."""
_LOGGED = frozenset(
    {
        *("baggage", "client", "client_host", "client_port", "peer", "peername", "remote_port", "signature"),
        *("auth", "otp", "pin", "session", "sid"),
    }
)
"""Common names of such log fields, in addition to those of `poller.events._privacy.names`."""


class _Budget:
    """The work that one record may cost."""

    def __init__(self) -> None:
        self._items, self._characters = _MOST_IN_ALL, _LONGEST_IN_ALL

    def items(self, number: int) -> int:
        """How many of so many items may be examined."""
        number = min(number, _MOST, self._items)
        self._items -= number
        return number

    def scrub(self, text: str) -> str:
        """The scrubbed text, if its length is left."""
        length = 0 if len(text) <= _SHORT else min(len(text), LONGEST)
        if length > self._characters:
            return _CUT
        self._characters -= length
        return scrub(text)


def scrub_attributes(attributes: Mapping[str, Any], *, outgoing: bool = False) -> dict[str, Any]:
    """Return the attributes that may leave the process: those that are denied left out, texts scrubbed.

    `outgoing`: of a span of kind client or producer, whose peer is what the server calls.
    """
    budget = _Budget()
    return {
        budget.scrub(name): _well_formed(value)
        if _is_kept(name, outgoing=outgoing)
        else _scrub(value, budget)
        for name, value in islice(attributes.items(), budget.items(len(attributes)))
        if not is_denied(name, outgoing)
    }


def is_harmless(attributes: Mapping[str, Any], *, outgoing: bool = False) -> bool:
    """Whether the attributes may leave the process as they are, as most may; quicker than to scrub them."""
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
            if not _is_kept(name, outgoing=outgoing) or well_formed(value) != value:
                return False
        elif kind not in _PLAIN and _scrub(value, budget) != value:
            return False
    return True


def scrub_value(value: Any) -> Any:
    """Scrub the texts in a value down to a level of 8; numbers stay as they are. Raises nothing.

    At most 1,000 items of each list or mapping are kept, 2,000 items and 65,536 characters in all.
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
                budget.scrub(name) if isinstance(name, str) else name: _scrub(one, budget, depth + 1)
                for name, one in islice(value.items(), budget.items(len(value)))
                if not is_denied(name)
            }
        if type(value) in _LISTS:
            most = budget.items(len(value))
            return type(value)(_scrub(one, budget, depth + 1) for one in islice(value, most))
    except Exception:  # noqa: BLE001 - a mapping of other people's, or one that another thread changes
        return REDACTED
    return budget.scrub(text_of(value))


def is_denied(name: Any, outgoing: bool = False) -> bool:
    """Whether an attribute of this name must not leave the process, whatever its value."""
    return _is_denied(
        name if isinstance(name, str) and len(name) <= _LONGEST_NAME else text_of(name)[:_LONGEST_NAME],
        outgoing,
    )


@lru_cache(4096)
def _is_denied(name: str, outgoing: bool) -> bool:
    plain = name.lower().replace("-", "_")
    return personal_name(plain, outgoing=outgoing) or plain in _LOGGED or plain.endswith(_SECRETS)


def _well_formed(value: Any) -> Any:
    return well_formed(value) if isinstance(value, str) else value


def _is_kept(name: str, *, outgoing: bool) -> bool:
    """Whether the value is a route template, or an address of the server itself or of what it calls."""
    return name in OWN or name in TEMPLATES or (outgoing and name in PEER)

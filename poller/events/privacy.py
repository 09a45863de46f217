"""Keep who a client is, and what opens their account, out of every attribute."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from poller.events.pii import OWN, PEER, personal_name
from poller.events.shapes import scrub

_SECRETS = ("_token", "_secret", "_password", "_passwd", "_cookie", "_api_key", "_signature", "_credentials")
"""Endings of names. `gen_ai.usage.input_tokens`, a number, has another."""
_PLAIN = frozenset({int, float, bool, type(None)})
_LISTS = frozenset({list, tuple})
_DEEPEST = 8
"""Levels of a value; it may be a circle."""
_LOGGED = frozenset(
    {"baggage", "client", "client_host", "client_port", "peer", "peername", "remote_port", "signature"}
)
"""What people call such fields in logs, beside those that `poller.events.pii` knows."""


def scrub_attributes(attributes: Mapping[str, Any], *, outgoing: bool = False) -> dict[str, Any]:
    """Return the attributes that may leave the process: those that are denied left out, texts scrubbed.

    `outgoing`: of a span of kind client or producer, whose peer is what the server calls.
    """
    return {
        name: value if _is_kept(name, outgoing=outgoing) else scrub_value(value)
        for name, value in attributes.items()
        if not is_denied(name, outgoing)
    }


def is_harmless(attributes: Mapping[str, Any], *, outgoing: bool = False) -> bool:
    """Whether the attributes may leave the process as they are, as most may; quicker than to scrub them."""
    for name, value in attributes.items():
        if is_denied(name, outgoing):
            return False
        kind = type(value)
        if kind is str:
            if scrub(value) != value and not _is_kept(name, outgoing=outgoing):
                return False
        elif kind not in _PLAIN and scrub_value(value) != value:
            return False
    return True


def scrub_value(value: Any, depth: int = 0) -> Any:
    """Scrub the texts in a value, however deep; numbers stay as they are."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes):
        return scrub(value.decode("utf-8", "replace"))
    if not isinstance(value, Mapping | tuple | list):
        return value
    if depth == _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {name: scrub_value(one, depth + 1) for name, one in value.items() if not is_denied(name)}
    return (
        type(value)(scrub_value(one, depth + 1) for one in value)
        if type(value) in _LISTS
        else scrub(str(value))
    )


@lru_cache(4096)
def is_denied(name: str, outgoing: bool = False) -> bool:
    """Whether an attribute of this name must not leave the process, whatever its value."""
    plain = str(name).lower().replace("-", "_")
    return personal_name(plain, outgoing=outgoing) or plain in _LOGGED or plain.endswith(_SECRETS)


def _is_kept(name: str, *, outgoing: bool) -> bool:
    """Whether the value is an address of the server itself, or of what it calls."""
    return name in OWN or (outgoing and name in PEER)

"""Text helpers for messages: quoted values, kinds, counts and suggestions for misspelt words."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence

_LONGEST = 60
_MOST_LISTED = 10
"""Maximum number of names in a message."""
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[\w .()*/>-]*[\w()])?", re.ASCII)


def value_text(value: object) -> str:
    """Return a value as PostgreSQL, YAML and Prometheus write it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def quote(value: object) -> str:
    """Return a value as quoted text, at most about 60 characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "...")
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"  # str() rejects more than 4300 digits
    return value_text(value) if isinstance(value, int | float) else kind_of(value)


def install(extra: str) -> str:
    """Return the command that installs an extra. The package is not on PyPI, so it is run in a clone."""
    return f"pip install '.[{extra}]' in a clone of the poller's repository"


def kind_of(value: object) -> str:
    """Return the kind of a value read from YAML, without its content."""
    match value:
        case None:
            return "empty"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "a mapping"
        case _:
            return "a list"


_SEVERAL = {"query": "queries", "more query": "more queries"}


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: `1 file`, `2 queries`."""
    return f"{number} {thing if number == 1 else _SEVERAL.get(thing, f'{thing}s')}"


def list_names(names: Iterable[str]) -> str:
    """Return the first names as text, and the number of the others."""
    names = sorted(names)
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{', '.join(names[:_MOST_LISTED])}{more}"


def near(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the entry of `candidates` that is most similar to `word`, if any is; `cutoff` as in difflib."""
    return next(iter(difflib.get_close_matches(word[:200], sorted(candidates), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or an empty text if no candidate is similar."""
    candidate = near(word, candidates)
    return f"; did you mean {candidate!r}?" if candidate else ""


def unknown_choice(text: str, choices: Sequence[str], example: str) -> str:
    """Return the problem of a text that is none of `choices`, with a similar one or an example."""
    hint = did_you_mean(text.strip().lower(), choices) or f"; write one like {example}"
    return f"{text!r} is not one of {', '.join(choices)}{hint}"


def as_yaml(value: object) -> str:
    """Return an example in the syntax of a query file, on one line."""
    match value:
        case Mapping():
            return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(as_yaml, value)) + "]"
        case str() if not _PLAIN.fullmatch(value):
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value_text(value)


def host_port(host: str, port: int | str) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("/") else f"{host}:{port}"

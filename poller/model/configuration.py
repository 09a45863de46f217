"""Configuration that can be loaded again while the poller runs: the catalogue and the targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from poller.model.catalog import Catalog
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.target import Target
from poller.model.text import did_you_mean, quote

_MOST_COMPARED = 1000
"""Maximum number of names to compare with a wrong name."""
_MOST_LISTED = 10
"""Maximum number of names in a message."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The queries and the targets, each validated alone and together."""

    catalog: Catalog
    targets: tuple[Target, ...]


def select_names(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    """Return the names of targets that match any of `patterns` (`*`, `?` and `[...]`); all without patterns.

    Raises ConfigError with every pattern that matches no name.
    """
    names = list(names)
    if not patterns:
        return set(names)
    problems, selected = [], set[str]()
    for pattern in patterns:
        if matching := {name for name in names if name == pattern or fnmatchcase(name, pattern)}:
            selected |= matching
        else:
            problems.append(invalid("--target", unmatched(pattern, names)))
    if problems:
        raise ConfigError(problems)
    return selected


def unmatched(pattern: str, names: Sequence[str]) -> str:
    """Return the problem of a pattern that matches none of `names`, with a similar name or some of them."""
    hint = did_you_mean(pattern, names[:_MOST_COMPARED]) or f"; there are: {list_names(names)}"
    return f"{quote(pattern)} matches no target{hint}"


def list_names(names: Iterable[str]) -> str:
    """Return the first names as text, and the number of the others."""
    names = sorted(names)
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{', '.join(names[:_MOST_LISTED])}{more}"

"""Selection of names by patterns (`*`, `?` and `[...]`), with the patterns that match no name as problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.text import did_you_mean, list_names, quote

_MOST_COMPARED = 1000
"""Maximum number of names to compare with a wrong name."""


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Return whether `name` matches any of `patterns`, or is one of them: names may contain `[`."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def select_names(
    patterns: Iterable[str], names: Iterable[str], option: str, problem: Callable[[str, Sequence[str]], str]
) -> set[str]:
    """Return the names that match any of `patterns`, which are the values of `option`.

    Raises ConfigError with every pattern that matches no name; `problem` returns its text.
    """
    names = list(names)
    problems, selected = [], set[str]()
    for pattern in patterns:
        if matching := {name for name in names if matches_any(name, [pattern])}:
            selected |= matching
        else:
            problems.append(invalid(option, problem(pattern, names)))
    if problems:
        raise ConfigError(problems)
    return selected


def select_targets(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    """Return the names of targets that match any of `patterns`; all without patterns.

    Raises ConfigError with every pattern that matches no name.
    """
    return select_names(patterns, names, "--target", no_target) if patterns else set(names)


def no_target(pattern: str, names: Sequence[str]) -> str:
    """Return the problem of a pattern that matches none of `names`, with a similar name or some of them."""
    hint = did_you_mean(pattern, names[:_MOST_COMPARED]) or f"; there are: {list_names(names)}"
    return f"{quote(pattern)} matches no target{hint}"

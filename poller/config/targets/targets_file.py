"""Targets file as parsed YAML, whose problems never contain a text of the file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from poller.config.yaml_file import ListFile
from poller.model.diagnostics import Diagnostic
from poller.model.path import PathKey
from poller.model.secrets import MASK
from poller.model.text import kind_of, quote

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,40}")


@dataclass(frozen=True, slots=True)
class TargetsFile(ListFile):
    """A file with a list of targets, and defaults for them.

    Any text in it may be a password in the wrong place. So messages and paths contain only keys that are
    words; other texts are masked.
    """

    RULE: ClassVar = "targets-file"
    KEYS: ClassVar = ("targets", "defaults")
    KIND: ClassVar = "targets file"
    ITEM: ClassVar = "target"
    ITEM_KEYS: ClassVar = "name and url"
    OTHER: ClassVar = (
        "queries",
        "is the list of a query file, not of a targets file; write --queries FILE, or set POLLER_QUERIES",
    )

    def problem(self, path: Sequence[PathKey], message: str) -> Diagnostic:
        return self._masked(ListFile.problem(self, path, message))

    def file_problems(self) -> Iterator[Diagnostic]:
        """Return the problems outside the targets."""
        for problem in ListFile.file_problems(self):
            yield self._masked(problem)
        if not isinstance(defaults := self.data.get("defaults", {}), dict):
            example = "write for example `defaults: {connections: 2}`"
            yield self.problem(("defaults",), f"is {kind_of(defaults)}, not a mapping; {example}")

    def defaults(self) -> dict[str, Any]:
        """Return the defaults as written; empty if there are none."""
        defaults = self.data.get("defaults")
        return defaults if isinstance(defaults, dict) else {}

    def _masked(self, problem: Diagnostic) -> Diagnostic:
        place = problem.place
        if place is None:
            return problem
        path = place.path or ()
        message = problem.message
        for text in {*_texts(_at(self.data, path)), *_texts(dict.fromkeys(map(str, path[-1:])))}:
            message = message.replace(quote(text), MASK)
        words = tuple(itertools.takewhile(lambda key: isinstance(key, int) or _WORD.fullmatch(key), path))
        place = replace(place, path=place.path and words)
        return replace(problem, rule=self.RULE, message=message, place=place)


def _texts(value: Any) -> Iterator[str]:
    """Return the texts in a value, except keys that are words."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (key for key in value if not _WORD.fullmatch(key))
        yield from itertools.chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_texts, value))


def _at(data: Any, path: Sequence[PathKey]) -> Any:
    """Return the value at `path`; None if there is none."""
    for key in path:
        try:
            data = data[key]
        except (LookupError, TypeError):
            return None
    return data

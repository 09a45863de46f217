"""Step counters for regular expressions and Python code, instead of measured seconds.

The counter runs the parsed expression as CPython's backtracking matcher would. Each test of a character is
one step; it adds up those of a search through the whole text. It supports the syntax that this project uses,
and rejects other syntax.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from re import _constants, _parser  # type: ignore[attr-defined]  # the parser of `re` itself
from typing import Any

Continue = Callable[[int], int | None]

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    _constants.CATEGORY_SPACE: str.isspace,
    _constants.CATEGORY_DIGIT: str.isdecimal,
    _constants.CATEGORY_WORD: lambda character: character.isalnum() or character == "_",
    _constants.CATEGORY_NOT_SPACE: lambda character: not character.isspace(),
    _constants.CATEGORY_NOT_DIGIT: lambda character: not character.isdecimal(),
    _constants.CATEGORY_NOT_WORD: lambda character: not (character.isalnum() or character == "_"),
}
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)


def search_steps(pattern: re.Pattern[str], text: str) -> int:
    """Return the steps that find every match of `pattern` in `text`."""
    matcher = _Matcher(pattern, text)
    at = 0
    while at <= len(text):
        matcher.steps += 1
        end = matcher.match(at)
        at = end if end is not None and end > at else at + 1
    return matcher.steps


def unbounded(pattern: re.Pattern[Any]) -> list[str]:
    """Return the quantifiers of a pattern without an upper bound, in the parser's notation."""
    quantifiers: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, _parser.SubPattern):
            for part in node:
                walk(part)
        elif isinstance(node, tuple | list):
            if len(node) == 2 and node[0] in _REPEATS and node[1][1] is _constants.MAXREPEAT:
                quantifiers.append(str(node[1][2]))
            for part in node:
                walk(part)

    walk(_parser.parse(pattern.pattern, pattern.flags))
    return quantifiers


def python_steps(function: Callable[[], object]) -> int:
    """Return the number of lines, calls and calls of C functions that `function` runs."""
    steps = 0

    def count(*_: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    sys.settrace(count)
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.settrace(None)
        sys.setprofile(None)
    return steps


@functools.cache
def _parsed(pattern: re.Pattern[str]) -> tuple[list[Any], dict[tuple[int, str], bool]]:
    """Return the parsed expression and a cache of the characters that each node of one character accepts."""
    nodes: list[Any] = _plain(_parser.parse(pattern.pattern, pattern.flags))
    return nodes, {}


def _plain(node: Any) -> Any:
    """Replace the parser's sequences, whose items are slow to read; an assertion gets its width."""
    if isinstance(node, tuple) and (node[0] is _constants.ASSERT or node[0] is _constants.ASSERT_NOT):
        kind, (direction, nodes) = node
        return kind, (direction, nodes.getwidth()[0], _plain(nodes))
    if isinstance(node, _parser.SubPattern | list):
        return [_plain(part) for part in node]
    return tuple(map(_plain, node)) if isinstance(node, tuple) else node


class _Matcher:
    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self.steps = 0
        self._text = text
        self._flags = pattern.flags
        self._nodes, self._accepted = _parsed(pattern)

    def match(self, at: int) -> int | None:
        return self._sequence(self._nodes, 0, at, lambda end: end)

    def _sequence(self, nodes: list[Any], index: int, at: int, then: Continue) -> int | None:
        if index == len(nodes):
            return then(at)
        return self._node(nodes[index], at, lambda end: self._sequence(nodes, index + 1, end, then))

    def _node(self, node: Any, at: int, then: Continue) -> int | None:
        kind, value = node
        if kind in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY):
            return then(at + 1) if self._matches_at(node, at) else None
        if kind is _constants.BRANCH:
            for branch in value[1]:
                if (end := self._sequence(branch, 0, at, then)) is not None:
                    return end
            return None
        if kind is _constants.SUBPATTERN:
            return self._sequence(value[3], 0, at, then)
        if kind is _constants.ATOMIC_GROUP:
            end = self._sequence(value, 0, at, lambda reached: reached)
            return None if end is None else then(end)
        if kind in (_constants.ASSERT, _constants.ASSERT_NOT):
            return then(at) if self._asserted(kind, at, *value) else None
        if kind is _constants.AT:
            return then(at) if self._is_at(value, at) else None
        if kind in _REPEATS:
            return self._repeat(kind, at, then, *value)
        raise NotImplementedError(str(kind))

    def _asserted(self, kind: Any, at: int, direction: int, width: int, nodes: list[Any]) -> bool:
        start = at if direction > 0 else at - width
        matches = start >= 0 and self._sequence(nodes, 0, start, lambda end: end) is not None
        return matches is (kind is _constants.ASSERT)

    def _is_at(self, value: Any, at: int) -> bool:
        self.steps += 1
        word = _CATEGORIES[_constants.CATEGORY_WORD]
        if value is _constants.AT_BOUNDARY:
            before = at > 0 and word(self._text[at - 1])
            return before is not (at < len(self._text) and word(self._text[at]))
        if value in (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING):
            return at == 0
        if value in (_constants.AT_END, _constants.AT_END_STRING):
            return at == len(self._text)
        raise NotImplementedError(str(value))

    def _repeat(
        self, kind: Any, at: int, then: Continue, least: int, most: Any, body: list[Any]
    ) -> int | None:
        most = len(self._text) + 1 if most is _constants.MAXREPEAT else int(most)
        if len(body) == 1 and body[0][0] in (
            _constants.LITERAL,
            _constants.NOT_LITERAL,
            _constants.IN,
            _constants.ANY,
        ):
            return self._repeat_single(kind, least, most, body[0], at, then)
        if kind is _constants.POSSESSIVE_REPEAT:
            count = 0
            while count < most:
                end = self._sequence(body, 0, at, lambda reached: reached)
                if end is None or end == at:
                    break
                at, count = end, count + 1
            return then(at) if count >= least else None
        return self._repeat_group(kind, least, most, body, at, then)

    def _repeat_single(
        self, kind: Any, least: int, most: int, node: Any, at: int, then: Continue
    ) -> int | None:
        count = 0
        if kind is _constants.MIN_REPEAT:
            while True:
                if count >= least and (end := then(at + count)) is not None:
                    return end
                if count == most or not self._matches_at(node, at + count):
                    return None
                count += 1
        while count < most and self._matches_at(node, at + count):
            count += 1
        if kind is _constants.POSSESSIVE_REPEAT:
            return then(at + count) if count >= least else None
        while count >= least:
            if (end := then(at + count)) is not None:
                return end
            count -= 1
        return None

    def _repeat_group(
        self, kind: Any, least: int, most: int, body: list[Any], at: int, then: Continue, count: int = 0
    ) -> int | None:
        def again() -> int | None:
            if count == most:
                return None
            return self._sequence(
                body,
                0,
                at,
                lambda end: (
                    None if end == at else self._repeat_group(kind, least, most, body, end, then, count + 1)
                ),
            )

        def stop() -> int | None:
            return then(at) if count >= least else None

        first, second = (stop, again) if kind is _constants.MIN_REPEAT else (again, stop)
        end = first()
        return second() if end is None else end

    def _matches_at(self, node: Any, at: int) -> bool:
        """Return whether the character at a position matches a node of one character."""
        self.steps += 1
        if at >= len(self._text):
            return False
        key = (id(node), self._text[at])
        if key not in self._accepted:
            self._accepted[key] = self._accepts(node[0], node[1], self._text[at])
        return self._accepted[key]

    def _accepts(self, kind: Any, value: Any, character: str) -> bool:
        if kind is _constants.ANY:
            return bool(self._flags & re.DOTALL) or character != "\n"
        if kind is _constants.IN:
            negated = value[0][0] is _constants.NEGATE
            return self._in(value[negated:], character) is not negated
        return self._in([(_constants.LITERAL, value)], character) is (kind is _constants.LITERAL)

    def _in(self, items: list[Any], character: str) -> bool:
        forms = (
            {character, character.lower(), character.upper()} if self._flags & re.IGNORECASE else {character}
        )
        for kind, value in items:
            for form in forms:
                if kind is _constants.LITERAL and form == chr(value):
                    return True
                if kind is _constants.RANGE and len(form) == 1 and value[0] <= ord(form) <= value[1]:
                    return True
                if kind is _constants.CATEGORY and _CATEGORIES[value](form):
                    return True
        return False

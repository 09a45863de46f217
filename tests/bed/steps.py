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

Match = Callable[[int], int | None]
"""Match from a position on; return the end of the match."""

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    _constants.CATEGORY_SPACE: str.isspace,
    _constants.CATEGORY_DIGIT: str.isdecimal,
    _constants.CATEGORY_WORD: lambda character: character.isalnum() or character == "_",
    _constants.CATEGORY_NOT_SPACE: lambda character: not character.isspace(),
    _constants.CATEGORY_NOT_DIGIT: lambda character: not character.isdecimal(),
    _constants.CATEGORY_NOT_WORD: lambda character: not (character.isalnum() or character == "_"),
}
_CHARACTERS = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY)
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)


def search_steps(pattern: re.Pattern[str], text: str) -> int:
    """Steps of finding every match of `pattern` in `text`, one after the other."""
    return _compiled(pattern).search(text)


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
def _compiled(pattern: re.Pattern[str]) -> _Matcher:
    return _Matcher(pattern)


def _reached(at: int) -> int:
    return at


class _Accepted(dict[str, bool]):
    """Whether a node of one character accepts a character; none is left at the end of the text."""

    def __init__(self, flags: int, kind: Any, value: Any) -> None:
        super().__init__({"": False})
        self._flags, self._kind, self._value = flags, kind, value

    def __missing__(self, character: str) -> bool:
        self[character] = accepts = self._accepts(self._kind, self._value, character)
        return accepts

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


class _Matcher:
    """A parsed expression as functions, each of which continues with the function of the next node."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.steps = 0
        self._text = ""
        self._flags = pattern.flags
        self._match = self._sequence(_parser.parse(pattern.pattern, pattern.flags), _reached)

    def search(self, text: str) -> int:
        self.steps, self._text = 0, text
        at = 0
        while at <= len(text):
            self.steps += 1
            end = self._match(at)
            at = end if end is not None and end > at else at + 1
        return self.steps

    def _sequence(self, nodes: Any, then: Match) -> Match:
        for kind, value in reversed(list(nodes)):
            then = self._node(kind, value, then)
        return then

    def _node(self, kind: Any, value: Any, then: Match) -> Match:
        if kind in _CHARACTERS:
            return self._character(_Accepted(self._flags, kind, value), then)
        if kind is _constants.BRANCH:
            return self._branch([self._sequence(branch, then) for branch in value[1]])
        if kind is _constants.SUBPATTERN:
            return self._sequence(value[3], then)
        if kind is _constants.ATOMIC_GROUP:
            return self._atomic(self._sequence(value, _reached), then)
        if kind in (_constants.ASSERT, _constants.ASSERT_NOT):
            direction, nodes = value
            width = 0 if direction > 0 else nodes.getwidth()[0]
            return self._assertion(self._sequence(nodes, _reached), width, kind is _constants.ASSERT, then)
        if kind is _constants.AT:
            return self._position(value, then)
        if kind in _REPEATS:
            least, most, body = value
            if len(body) == 1 and body[0][0] in _CHARACTERS:
                return self._repeat_character(kind, least, most, _Accepted(self._flags, *body[0]), then)
            if kind is _constants.POSSESSIVE_REPEAT:
                return self._repeat_atomic(least, most, self._sequence(body, _reached), then)
            return self._repeat_group(kind, least, most, body, then)
        raise NotImplementedError(str(kind))

    def _character(self, accepted: _Accepted, then: Match) -> Match:
        def match(at: int) -> int | None:
            self.steps += 1
            return then(at + 1) if accepted[self._text[at : at + 1]] else None

        return match

    def _branch(self, branches: list[Match]) -> Match:
        def match(at: int) -> int | None:
            for branch in branches:
                if (end := branch(at)) is not None:
                    return end
            return None

        return match

    def _atomic(self, body: Match, then: Match) -> Match:
        def match(at: int) -> int | None:
            end = body(at)
            return None if end is None else then(end)

        return match

    def _assertion(self, body: Match, width: int, expected: bool, then: Match) -> Match:
        def match(at: int) -> int | None:
            matches = at >= width and body(at - width) is not None
            return then(at) if matches is expected else None

        return match

    def _position(self, value: Any, then: Match) -> Match:
        word = _CATEGORIES[_constants.CATEGORY_WORD]
        if value is _constants.AT_BOUNDARY:

            def holds(at: int) -> bool:
                before = at > 0 and word(self._text[at - 1])
                return before is not (at < len(self._text) and word(self._text[at]))

        elif value in (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING):

            def holds(at: int) -> bool:
                return at == 0

        elif value in (_constants.AT_END, _constants.AT_END_STRING):

            def holds(at: int) -> bool:
                return at == len(self._text)

        else:
            raise NotImplementedError(str(value))

        def match(at: int) -> int | None:
            self.steps += 1
            return then(at) if holds(at) else None

        return match

    def _repeat_character(self, kind: Any, least: int, most: Any, accepted: _Accepted, then: Match) -> Match:
        def shortest(at: int) -> int | None:
            count = 0
            while True:
                if count >= least and (end := then(at + count)) is not None:
                    return end
                if count == most:
                    return None
                self.steps += 1
                if not accepted[self._text[at + count : at + count + 1]]:
                    return None
                count += 1

        def longest(at: int) -> int:
            count = 0
            while count < most:
                self.steps += 1
                if not accepted[self._text[at + count : at + count + 1]]:
                    break
                count += 1
            return count

        def possessive(at: int) -> int | None:
            count = longest(at)
            return then(at + count) if count >= least else None

        def greedy(at: int) -> int | None:
            for count in range(longest(at), least - 1, -1):
                if (end := then(at + count)) is not None:
                    return end
            return None

        if kind is _constants.MIN_REPEAT:
            return shortest
        return possessive if kind is _constants.POSSESSIVE_REPEAT else greedy

    def _repeat_atomic(self, least: int, most: Any, body: Match, then: Match) -> Match:
        def match(at: int) -> int | None:
            count = 0
            while count < most:
                end = body(at)
                if end is None or end == at:
                    break
                at, count = end, count + 1
            return then(at) if count >= least else None

        return match

    def _repeat_group(self, kind: Any, least: int, most: Any, nodes: Any, then: Match) -> Match:
        begun: list[tuple[int, int]] = []
        """Start and number of each repetition that is being matched, the innermost last."""

        def repeated(end: int) -> int | None:
            at, count = begun[-1]
            return None if end == at else repeat(end, count + 1)

        body = self._sequence(nodes, repeated)

        def again(at: int, count: int) -> int | None:
            if count == most:
                return None
            begun.append((at, count))
            end = body(at)
            begun.pop()
            return end

        def repeat(at: int, count: int = 0) -> int | None:
            if kind is _constants.MIN_REPEAT:
                end = then(at) if count >= least else None
                return again(at, count) if end is None else end
            end = again(at, count)
            return then(at) if end is None and count >= least else end

        return repeat

"""Say in our words what is wrong with a command line, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poller.words import did_you_mean, shown

_CHOICE = re.compile(r"(?:Value error, )?'(?P<given>[^']*)' is not one of (?P<known>'.+')\.?")
_BOUND = re.compile(r"Input should be (?P<side>greater|less) than or equal to (?P<bound>\S+)")
_NUMBER = re.compile(r"Input should be a valid (?P<kind>integer|number)")
_NO_VALUE = re.compile(r"Option '(?P<option>--[a-z-]+)' requires an argument\.")


def reworded(message: str, given: Sequence[str], options: Sequence[str] = ()) -> str:
    """What the library says of the arguments `given`, without its slang, and with what to write instead.

    `options` are the spellings of the option that it complains about, where it is one.
    """
    if match := _CHOICE.fullmatch(message):
        known = re.findall("'([^']*)'", match["known"])
        meant = did_you_mean(match["given"], known) or f"; write one like {known[0]}"
        return f"{shown(match['given'])} is none of {', '.join(known)}{meant}"
    if match := _BOUND.match(message):
        small = match["side"] == "greater"
        size, least = ("small", "least") if small else ("large", "most")
        return f"{_value(given, options)}is too {size}; write at {least} {match['bound']}"
    if match := _NUMBER.match(message):
        kind = "a whole number" if match["kind"] == "integer" else "a number"
        return f"{_value(given, options)}is not {kind}; write one like 10"
    if match := _NO_VALUE.fullmatch(message):
        return f"{match['option']} needs a value{_example(match['option'])}"
    return message.replace("Value error, ", "")


def _value(given: Sequence[str], options: Sequence[str]) -> str:
    """The value of one of `options` as it was given, ready to be put before a word."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in options:
            return f"{shown(value if equals else following)} "
    return ""


def _example(option: str) -> str:
    """`; write for example ...` for the option of a setting."""
    from poller.variables import Variables, example_of

    name = option.removeprefix("--").replace("-", "_")
    if name not in Variables.model_fields:
        return ""
    return f"; write for example {option} {example_of(name)}"

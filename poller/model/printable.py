"""Escapes for text in a terminal or a log, so that it cannot control the terminal.

It imports no other module of the poller, because both the daemon and `poller.events` need it.
"""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, lone surrogates, characters that reorder a line (U+061C, U+200E, U+200F, U+202A-E,
# U+2066-9) or break it (U+2028, U+2029), and characters without width or use in a message. U+200C and U+200D
# stay, because Persian and emoji need them.
_HIDDEN = "\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
_IN_A_LINE = re.compile(f"[\x00-\x1f{_HIDDEN}]")
_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_HIDDEN}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: str) -> str:
    r"""Return `text` on one line: each control or invisible character as `\n`, `\r`, `\t` or `\u001b`.

    JSON, YAML's double quotes and Python support these escapes, so JSON stays valid and keeps its meaning.
    """
    return _IN_A_LINE.sub(_escaped, text)


def lines(text: str) -> str:
    """Return `text` with the characters escaped that `one_line` escapes, except line feeds and tabs."""
    return _IN_LINES.sub(_escaped, text)


def indented(text: str) -> str:
    """Return lines to append to a log record, each indented: only a record starts in column one."""
    return "".join(f"\n    {line}" for line in lines(text).split("\n"))


def _escaped(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"


def text_of(value: object) -> str:
    """Return `str(value)`, or the name of its type if that raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__, or endless recursion
        return f"<{type(value).__name__}>"

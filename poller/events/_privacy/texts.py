"""Preparation of texts for the pattern search: cut, well-formed and without nested encodings."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

REDACTED = "[redacted]"
LONGEST = 32_768
"""Maximum number of characters of a text."""
LONGEST_PATH = 2_048
"""Maximum number of characters of a request's path."""
_LONGEST_WORD = 512
"""Length up to which a word at a cut is dropped: half of an address cannot be recognised."""
ENCODINGS = 3
"""Maximum number of nested encodings that are recognised."""
_LOOK_ALIKES = {
    code: plain
    for code in (*range(0x2000, 0x2500), *range(0xFE50, 0xFF66), *range(0x1D400, 0x1D800))
    if len(plain := unicodedata.normalize("NFKC", chr(code))) == 1 and plain.isascii()
} | dict.fromkeys((0x3002, 0xFF61), ".")
"""Characters that are ASCII after NFKC, and the full stops of IDNA; input methods type them for `@.:=`.

Each maps to one character, so that a text keeps its length.
"""

# `{m,n}+` with n above the longest text: bounded, and one match covers a whole run. The marker at the end of
# a shortened text needs the extra characters.
MOST = LONGEST + 100


_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|([\"\\/]))")


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a text; drop the word at the cut, because half of a secret cannot be recognised."""
    if len(text) <= longest:
        return text
    head = text[: longest - _LONGEST_WORD]
    tail = text[len(head) : longest]
    blank = max(tail.rfind(" "), tail.rfind("\n"))
    return f"{head}{tail[: max(blank + 1, 0)]}{REDACTED} ({len(text)} characters)"


def well_formed(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate, which UTF-8 cannot encode and fails an export."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decodings(text: str) -> list[str]:
    """Return the text, followed by up to three forms with one more level of encoding removed in each.

    Encodings are percent-encoding, the escapes of JSON, and look-alikes of ASCII characters.
    """
    levels = [text]
    for _ in range(ENCODINGS):
        if (decoded := decode(levels[-1])) == levels[-1]:
            break
        levels.append(decoded)
    return levels


def decode(text: str) -> str:
    """Return the text with one level of encoding removed."""
    if "%" in text:
        text = unquote(text)
    if "\\" in text:
        text = well_formed(_ESCAPE.sub(lambda match: match[2] or chr(int(match[1], 16)), text))
    return text if text.isascii() else text.translate(_LOOK_ALIKES)

"""Patterns of rows and parameters in errors of PostgreSQL and SQLAlchemy, and their removal from texts."""

from __future__ import annotations

import re

from poller.events._privacy.texts import MOST, REDACTED

_ROW = re.compile(rf"DETAIL:[ \t]{{0,{MOST}}}+|ailing row contains \(|\)=\(")
"""Text before a row that PostgreSQL quotes with its line breaks: `Key (username)=(ada) already exists.`"""
_END_OF_ROW = re.compile(
    rf"\)(?:\.[ \t]{{0,8}}+(?=[\r\n]|\Z)"
    rf"|(?:\x20(?:already|is\x20|conflicts)|[\x20\xa0]?[»«])[^\r\n]{{0,{MOST}}}+)"
)
"""The row itself may contain this text; the last match counts."""
_LONGEST_KEY = 512
"""Maximum number of characters from `Key (` to the value, for the names of columns."""
END_OF_LINE = re.compile(rf"[^\r\n]{{0,{MOST}}}+")
_PARAMETERS = re.compile(
    r"\[(?:parameters: |(?:generated in|cached since|no key|caching disabled|raw sql)[^\]\r\n]{0,64}+\] )"
    rf"[^\r\n]{{1,{MOST}}}+"
)
"""Parameters of a statement in an error or a log line of SQLAlchemy, up to the end of the line."""
_QUOTED_BY_SERVER = re.compile(
    rf"((?<!\d)\$\d{{1,5}}+ = )'(?:[^']|''){{0,{MOST}}}+'?"
    rf"|(COPY [^\r\n,:]{{1,128}}+, line \d{{1,20}}+(?:, column [^\r\n:]{{1,128}}+)?: )"
    rf"\"[^\r\n]{{0,{MOST}}}+"
)
"""Parameters (`portal parameter $1 = 'ada'`) and rows of COPY in the context of an error of PostgreSQL."""


def remove_rows(text: str, end_of_line: re.Pattern[str] = END_OF_LINE) -> str:
    """Replace rows that PostgreSQL quotes in an error."""
    if "DETAIL:" not in text and "ailing row" not in text and ")=(" not in text:
        return text
    parts: list[str] = []
    end = 0
    for match in _ROW.finditer(text):
        start = match.end()
        if match.start() < end or _is_scrubbed(text, start):
            continue
        if match[0] == ")=(" and "Key (" not in text[max(end, match.start() - _LONGEST_KEY) : match.start()]:
            continue
        parts += text[end:start], REDACTED
        end = start if match[0].startswith("DETAIL:") else _end_of_row(text, start)
        if end == start:
            line = end_of_line.match(text, start)
            end = line.end() if line else start
            if "ailing row contains (" in text[start:end] or ")=(" in text[start:end]:
                # Skip at least the line, otherwise it would be read again for each row in it.
                end = max(end, _end_of_row(text, start))
    return "".join(parts) + text[end:] if parts else text


def _is_scrubbed(text: str, at: int) -> bool:
    """Return whether the rest of the line is empty or only the marker."""
    end = at + len(REDACTED) if text.startswith(REDACTED, at) else at
    return text[end : end + 1] in ("", "\r", "\n")


def _end_of_row(text: str, at: int) -> int:
    """Return the end of the sentence about a row: before the next error, or by default the end of the text.

    A `DETAIL:` before any end belongs to the row, because a client wrote it.
    """
    following = at
    while following >= 0:
        following = text.find("DETAIL:", at)
        most = len(text) if following < 0 else following
        ends = [
            match.end()
            for match in _END_OF_ROW.finditer(text, at, most)
            # A sentence, possibly in quotes: `server (primary) is down` in a later line does not end a row.
            if match[0][1] in ".»«" or match[0].endswith((".", '"', "'", "}", "]")) or "»" in match[0][:3]
        ]
        if ends:
            return ends[-1]
        at = following + 1
    return len(text)


def remove_parameters(text: str) -> str:
    """Replace parameters of statements and rows of COPY, as SQLAlchemy and PostgreSQL quote them."""
    if "[" in text:
        text = _PARAMETERS.sub(_without_parameters, text)
    if "$" in text or "COPY " in text:
        text = _QUOTED_BY_SERVER.sub(
            lambda match: f"{match[1]}'{REDACTED}'" if match[1] else f'{match[2]}"{REDACTED}"', text
        )
    return text


def _without_parameters(match: re.Match[str]) -> str:
    """Keep what follows the last bracket: in an escaped text, the error has its other lines there."""
    start = match[0].index(" ") + 1 if match[0].startswith("[parameters") else match[0].index("] ") + 2
    if match[0][start:] == REDACTED:
        return match[0]
    end = match[0].rfind("]", start) if match[0].startswith("[parameters") else -1
    return match[0][:start] + REDACTED + (match[0][end:] if end > start else "")

"""Named parameters of a statement: `:name`, as in psql and SQLAlchemy, and the server's placeholders `$n`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

_LETTER = r"[A-Za-z_\u0080-\U0010ffff]"
_LINE_END = r"[ \t\f\v]*+[\r\n][ \t\f\v\r\n]*+"
"""Between the parts of one string (PostgreSQL manual, "String Constants")."""
_ESCAPED = r"(?:[^'\\]|\\.|'')*+'"
_TOKEN = re.compile(
    rf"""
      --[^\r\n]*+
    | (?P<comment>/\*)
    | [eE]'{_ESCAPED}(?:{_LINE_END}'{_ESCAPED})*+
    | '[^']*+'
    | "[^"]*+"
    | \$(?P<tag>(?:{_LETTER}[0-9A-Za-z_\u0080-\U0010ffff]*+)?)\$.*?(?:\$(?P=tag)\$|\Z)
    | {_LETTER}[0-9A-Za-z_$\u0080-\U0010ffff]*+
    | [0-9][0-9A-Za-z_.]*+
    | ::
    | \$(?P<number>[1-9])(?![0-9])
    | (?<![\w)\]"'$:]):(?P<name>[A-Za-z_]\w*+)
    """,
    re.DOTALL | re.VERBOSE,
)
"""Tokens in which a colon begins no parameter, and the parameter.

As in SQLAlchemy, a colon directly after a word, number, quote or bracket begins none: `a[1:n]`.
"""
_COMMENT_MARK = re.compile(r"/\*|\*/")
_AT_COLON = re.compile(r""":(['"]?)(?P<name>\w+)\1""")


def to_placeholders(sql: str, names: Sequence[str]) -> str:
    """Return `sql` with `$1`, `$2`, ... instead of the parameters `names`, which are nine at most.

    Spaces fill up each placeholder, so that every other character keeps its position.
    """
    return replace_parameters(
        sql, {name: f"${number}".ljust(1 + len(name)) for number, name in enumerate(names, 1)}
    )


def to_names(sql: str, names: Sequence[str]) -> str:
    """Return `sql` with `:name` instead of the placeholders that `to_placeholders` made."""

    def named(token: re.Match[str]) -> tuple[str, int] | None:
        if not token["number"]:
            return None
        name = names[int(token["number"]) - 1]
        rest = sql[token.end() : token.end() + len(name) - 1]
        return f":{name}", token.end() + len(rest) - len(rest.lstrip(" "))

    return _replace(sql, named) if names else sql


def replace_parameters(sql: str, texts: Mapping[str, str]) -> str:
    """Return `sql` with a text instead of each parameter that `texts` contains."""

    def replaced(token: re.Match[str]) -> tuple[str, int] | None:
        name = token["name"]
        return (texts[name], token.end()) if name in texts else None

    return _replace(sql, replaced) if texts else sql


def _replace(sql: str, replaced: Callable[[re.Match[str]], tuple[str, int] | None]) -> str:
    """Replace the tokens for which `replaced` returns a text and the end of the replaced part."""
    parts: list[str] = []
    done = at = 0
    while token := _TOKEN.search(sql, at):
        at = token.end()
        if token["comment"]:
            at = _end_of_comment(sql, at)
        elif replacement := replaced(token):
            parts += [sql[done : token.start()], replacement[0]]
            done = at = replacement[1]
    return "".join([*parts, sql[done:]])


def names_in(sql: str) -> list[str]:
    """Return each name of a parameter in `sql` once."""
    names: dict[str, None] = {}

    def note(token: re.Match[str]) -> None:
        if token["name"]:
            names[token["name"]] = None

    _replace(sql, note)
    return list(names)


def parameter_at(sql: str, position: int) -> str | None:
    """Return the name after a colon at character `position` (from 1) of `sql`; None if there is none."""
    parameter = _AT_COLON.match(sql, position - 1) if position > 0 else None
    return parameter["name"] if parameter else None


def _end_of_comment(sql: str, at: int) -> int:
    """Return the end of the comment whose content begins at `at`; comments can be nested."""
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(sql, at)):
        depth += 1 if mark[0] == "/*" else -1
        at = mark.end()
    return at if depth == 0 else len(sql)

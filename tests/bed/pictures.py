"""Pictures of terminal screens: SVG files made by Rich from the text that a command drew."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b[()][A-Z0-9]|\r")
_TEXT = re.compile(r"<text [^>]*>(.*?)</text>", re.DOTALL)
_HISTORY = re.compile(r"[▁▂▃▄▅▆▇█]+")
_NUMBER = re.compile(r"[<+-]?\d[\d,.]*(e[+-]?\d+)?( m?s\b)?")


def draw(name: str, title: str, screen: Sequence[str], width: int) -> str:
    """Return the SVG of a terminal with `screen`, lines of text with colours (ANSI)."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in [*screen, ""]:  # otherwise the picture cuts the descenders of the last line
        console.print(Text.from_ansi(_STEERING.sub("", line)), overflow="fold")
    return console.export_svg(title=title, unique_id=name)


def words(svg: str) -> list[str]:
    """Return the words of a picture, in order, without values that differ from run to run."""
    texts = [html.unescape(text) for text in _TEXT.findall(svg)]
    return normal(" ".join(texts))


def normal(text: str) -> list[str]:
    """Return the words of a text without styles, numbers and histories."""
    text = _HISTORY.sub(" ", _STYLES.sub("", text).replace("\xa0", " "))
    # A value may be absent: a rate before the second export, a change of 0.
    return [word for word in _NUMBER.sub("N", text).split() if word not in {"N", "mean", "-"}]

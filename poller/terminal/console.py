"""Console for every table and every coloured line."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from poller.model.printable import lines, one_line
from poller.terminal.stdio import unguarded


def open_console(*, stderr: bool = False, no_color: bool | None = None) -> Console:
    """Open stdout, or stderr, as it is now."""
    stream = unguarded(sys.stderr if stderr else sys.stdout)
    return _Console(file=stream, highlight=False, emoji=False, no_color=no_color)


class _Console(Console):
    """Escapes text that would act on the terminal; the codes that rich makes of styles pass."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(lines(text), style)


def say(console: Console, text: str, style: str = "") -> None:
    """Print `text` as one line that does not fold; nothing in it is markup or acts on the terminal."""
    console.print(one_line(text), style=style or None, markup=False, soft_wrap=True)

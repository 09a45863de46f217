"""Console for every table and every coloured line."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from poller.model.printable import lines, one_line
from poller.terminal.stdio import unguarded


def open_console(*, stderr: bool = False, no_color: bool | None = None) -> Console:
    """Return a console on the current stdout, or stderr; `no_color` None follows the environment."""
    stream = unguarded(sys.stderr if stderr else sys.stdout)
    return _Console(file=stream, highlight=False, emoji=False, no_color=no_color)


class _Console(Console):
    """A console that escapes text that would act on the terminal, except for the codes of rich's styles."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(lines(text), style)


def say(console: Console, text: str, style: str = "") -> None:
    """Print `text` as one unwrapped line; markup and control characters in it have no effect."""
    console.print(one_line(text), style=style or None, markup=False, soft_wrap=True)


def warn(console: Console, text: str) -> None:
    """Print a warning as one line."""
    say(console, f"warning: {text}", "yellow")

"""Progress line on a terminal: the queries that are still running, and for how long."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text


class Progress:
    """A line on stderr that disappears when the polls are done, so that stdout has only the result."""

    def __init__(self, queries: Sequence[str]) -> None:
        self._waiting = list(queries)
        self._total = len(self._waiting)
        self._since = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.live import Live

            from poller.terminal.console import open_console

            self._live = Live(
                get_renderable=self._line,
                console=open_console(stderr=True),
                transient=True,
                refresh_per_second=8,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def done(self, query: str) -> None:
        """Remove `query` from the line, and start the timer of the next query."""
        if query in self._waiting:
            self._waiting.remove(query)
        self._since = time.monotonic()

    def _line(self) -> Text:
        from rich.text import Text

        waiting = self._waiting
        if not waiting:
            return Text("")
        # The connection runs the queries one at a time in order, so the first unanswered query is running.
        elapsed = time.monotonic() - self._since
        next_queries = (
            f", then {', '.join(waiting[1:4])}{', ...' if len(waiting) > 4 else ''}" if waiting[1:] else ""
        )
        done = self._total - len(waiting)
        return Text(
            f"{done}/{self._total} done; running {waiting[0]} for {elapsed:.1f} s{next_queries}",
            no_wrap=True,
            overflow="ellipsis",
        )

"""First polls of queries: which ticks still owe them, and when their values are worth an export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from poller.daemon.timer import Entry


class FirstPolls:
    """The ticks whose queries are polled for the first time since the start or a replacement.

    Not thread-safe, except for `ready`.
    """

    def __init__(self, on_first_polls: Callable[[], None], spacing: float) -> None:
        """Prepare to call `on_first_polls` after the first of them, after the last, and sometimes in between.

        In between, it is called at most every `spacing` seconds, so that many ticks cause few exports.
        """
        self._on_first_polls = on_first_polls
        self._spacing = spacing
        self._awaited: set[Entry] = set()
        """Ticks of the start that have not ended yet."""
        self._fresh: set[Entry] = set()
        """Ticks with fresh queries."""
        self._unreported = False
        self._reported: float | None = None

    @property
    def ready(self) -> bool:
        """Whether every tick of the start has ended once, with any result."""
        return not self._awaited

    @property
    def awaited(self) -> list[Entry]:
        """The ticks of the start that have not ended yet."""
        return sorted(self._awaited)

    def expect(self, entry: Entry, *, at_start: bool) -> None:
        """Note that a tick has fresh queries."""
        self._fresh.add(entry)
        if at_start:
            self._awaited.add(entry)

    def begin(self, entry: Entry) -> None:
        """Note that a tick runs its fresh queries."""
        self._fresh.discard(entry)

    def end(self, entries: Iterable[Entry], *, first: bool) -> None:
        """Note that ticks have ended, or were removed; `first` if they had fresh queries."""
        for entry in entries:
            self._awaited.discard(entry)
            self._fresh.discard(entry)
        self._unreported |= first

    def due(self) -> Callable[[], None] | None:
        """Return the function to call now, if there are values to report."""
        now, last = time.monotonic(), self._reported
        if not self._unreported or (self._fresh and last is not None and now - last < self._spacing):
            return None
        self._unreported, self._reported = False, now
        return self._on_first_polls

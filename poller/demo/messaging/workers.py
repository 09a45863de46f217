"""Periodic background tasks of the messaging server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from opentelemetry.context import Context, attach

Work = Callable[[], Awaitable[object]]
_LAST_RUN = 5.0
"""Seconds that a run in progress may still take at the end."""


class Workers:
    """Tasks that run during the `async with` block; an error of their work does not end them."""

    def __init__(self) -> None:
        self._work: list[tuple[Work, float]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    def add(self, seconds: float, work: Work) -> None:
        """Run `work` at the start, and again `seconds` after each run."""
        self._work.append((work, seconds))

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._repeat(work, seconds)) for work, seconds in self._work]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A cancelled run would have a span without a failure, although it did not do its work.
        self._ended.set()
        await asyncio.wait(self._tasks, timeout=_LAST_RUN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, work: Work, seconds: float) -> None:
        # Each run has its own trace, which starts with the span of the work.
        attach(Context())
        while not self._ended.is_set():
            with suppress(Exception):  # the traced function logs it
                await work()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), seconds)

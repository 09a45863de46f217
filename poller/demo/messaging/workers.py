"""Periodic background tasks of the messaging server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from opentelemetry.context import Context, attach

Work = Callable[[], Awaitable[object]]


class Workers:
    """Tasks that run during the `async with` block; an error of their work does not end them."""

    def __init__(self) -> None:
        self._work: list[tuple[Work, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, seconds: float, work: Work) -> None:
        """Run `work` at the start, and again `seconds` after each run."""
        self._work.append((work, seconds))

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(_repeat(work, seconds)) for work, seconds in self._work]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _repeat(work: Work, seconds: float) -> None:
    # Each run has its own trace, which starts with the span of the work.
    attach(Context())
    while True:
        with suppress(Exception):  # the traced function logs it
            await work()
        await asyncio.sleep(seconds)

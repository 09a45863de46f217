"""Functions to run at the end of an ASGI application's lifespan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

logger = logging.getLogger(__name__)

at_end: list[Callable[[], object]] = []
"""Called in a thread after the application has ended and before the server is told so."""

_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


def ending(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    """Wrap the `send` of a lifespan, so that its last message comes after `at_end`."""

    async def send_last(message: MutableMapping[str, Any]) -> None:
        if message["type"] in _ENDS:
            await asyncio.to_thread(_run)
        await send(message)

    return send_last


def _run() -> None:
    for function in at_end:
        try:
            function()
        except Exception:  # the server must come to its end
            logger.exception("what was left could not be pushed")

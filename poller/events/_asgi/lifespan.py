"""Functions to run at the end of an ASGI application's lifespan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

logger = logging.getLogger(__name__)

at_end: list[Callable[[], object]] = []
"""Functions to call in a thread after the application has shut down and before the server is notified."""

_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


def ending(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    """Wrap the `send` of a lifespan, so that the functions in `at_end` run before its last message."""

    async def send_last(message: MutableMapping[str, Any]) -> None:
        if message["type"] in _ENDS:
            await asyncio.to_thread(_run)
        await send(message)

    return send_last


def _run() -> None:
    for function in at_end:
        try:
            function()
        except Exception:  # a failure must not block the shutdown
            logger.exception("pending telemetry could not be exported")

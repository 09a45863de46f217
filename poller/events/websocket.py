"""Telemetry of a WebSocket session from handshake to close, with counts of dropped items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time_ns
from typing import TypeVar

from poller.events._asgi.exchange import CLIENT_CLOSED_REQUEST, FAILED, AsgiMessage, Exchange
from poller.events._catalog.instruments import Timed

Item = TypeVar("Item")

_SWITCHING_PROTOCOLS = 101
_REFUSED = 403
_NORMAL, _NONE_RECEIVED = 1000, 1005


class WebSocketExchange(Exchange):
    """One WebSocket session. Its handshake counts as a request; it is open until either side closes it.

    The whole session has one root span, `websocket_session`.
    """

    _status: int | None = None
    _answering = FAILED
    _session: Timed | None = None
    _over_at: int | None = None

    async def receive(self) -> AsgiMessage:
        """Receive a message and detect that the client closes the session."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._disconnected = True
            self._close(message.get("code", _NONE_RECEIVED))
        return message

    async def send(self, message: AsgiMessage) -> None:
        """Send a message and detect that the application accepts, rejects or closes the session."""
        kind = message["type"]
        if kind in ("websocket.accept", "websocket.http.response.start"):
            message = self.with_id(message)
        await self.forward(message)
        if kind == "websocket.accept":
            self._handshaken(_SWITCHING_PROTOCOLS)
            self._session = self._metrics.websocket_session()
            self._session.__enter__()
        elif kind == "websocket.close":
            # If the application closes before it accepts, the server answers 403 (ASGI specification,
            # "Close").
            self._handshaken(_REFUSED)
            self._close(message.get("code", _NORMAL))
        elif kind == "websocket.http.response.start":
            self._answering = message["status"]
        elif kind == "websocket.http.response.body" and not message.get("more_body", False):
            self._handshaken(self._answering)

    def name(self, route: str | None) -> str:
        """Return the fixed name `websocket_session`, which distinguishes sessions from requests."""
        del route
        return "websocket_session"

    def over(self, error: BaseException | None) -> None:
        """End the session, if it is still open, because the application has returned or raised."""
        self._handshaken(CLIENT_CLOSED_REQUEST if self._disconnected and error is None else FAILED, error)
        self._close(None)
        self.end_span(self._status or FAILED, error, self._over_at)

    def _handshaken(self, status: int, error: BaseException | None = None) -> None:
        if self._status is None:
            self._status = status
            self.count(status, error)

    def _close(self, code: int | None) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            session.__exit__(None, None, None)
            self._over_at = time_ns()
            if code is not None:
                self.span.set_attribute("websocket.close_code", code)


def offer(queue: asyncio.Queue[Item], item: Item, dropped: Callable[[], object]) -> bool:
    """Put `item` into a bounded queue, or call `dropped` if it is full; return whether it was queued.

    Use it for work that a slow client must not block: `offer(outbound, frame,
    partial(metrics.websocket_outbound_dropped, "buffer_full"))`.
    """
    try:
        queue.put_nowait(item)
    except asyncio.QueueFull:
        dropped()
        return False
    return True

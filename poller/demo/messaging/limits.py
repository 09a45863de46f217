"""Rate limit per client and tier, as ASGI middleware with token buckets."""

from __future__ import annotations

import math
import time
from typing import Literal

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics

Tier = Literal["auth", "standard", "free"]

_MOST = 10_000
"""Maximum number of buckets."""


class RateLimit:
    """ASGI middleware with one token bucket per client and tier; responds with 429 if it is empty."""

    def __init__(self, app: ASGIApp, metrics: EventMetrics, settings: MessagingSettings) -> None:
        self._app = app
        self._metrics = metrics
        self._tiers = {
            "auth": (settings.auth_rate, settings.auth_burst),
            "standard": (settings.rate, settings.burst),
        }
        self._buckets: dict[tuple[Tier, str], tuple[float, float]] = {}
        """Tokens, and the time of their last update (monotonic seconds)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a session on, or reject it."""
        client = scope.get("client")
        wait = self._wait(_tier(scope), client[0] if client else "")
        self._metrics.rate_limit_decided("throttled" if wait else "allowed")
        if wait:
            headers = {"retry-after": str(math.ceil(wait))}
            await JSONResponse({"error": "too many requests"}, 429, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _wait(self, tier: Tier, client: str) -> float:
        """Return the seconds until the next token, or 0 if a token was used."""
        if tier == "free":
            return 0
        rate, burst = self._tiers[tier]
        now = time.monotonic()
        tokens, at = self._buckets.pop((tier, client), (burst, now))
        tokens = min(burst, tokens + (now - at) * rate)
        allowed = tokens >= 1
        # Inserted at the end, so that the least recently used bucket is the first.
        self._buckets[tier, client] = (tokens - allowed, now)
        if len(self._buckets) > _MOST:
            del self._buckets[next(iter(self._buckets))]
        return 0 if allowed else (1 - tokens) / rate


def _tier(scope: Scope) -> Tier:
    path: str = scope["path"]
    if path.startswith(("/v1/attachments", "/v1/backup")):
        return "free"
    if path == "/v1/users" or path.startswith("/v1/sessions"):
        return "auth"
    return "standard"

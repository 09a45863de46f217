"""Exception for a request that the server rejects with a 4xx status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class RequestError(Exception):
    """Becomes a response with a 4xx status; because of `status_code`, `poller.events` counts no failure."""

    def __init__(
        self, status_code: int, message: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.headers = headers

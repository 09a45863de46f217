"""Exception for a request that the server rejects with a 4xx status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class RefusedError(Exception):
    """Becomes an answer with this status, 4xx; `poller.events` knows by the attribute that nothing failed."""

    def __init__(
        self, status_code: int, what: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(what)
        self.status_code = status_code
        self.headers = headers

"""Count what came of what was sent."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from poller.verdict import Fate, Verdict

Rejection = Literal["partial_success", "invalid", "too_large", "poison", "unencodable"]
_OUTCOMES: dict[Fate, str] = {
    "taken": "ok",
    "later": "failed",
    "held": "failed",
    "invalid": "refused",
    "too_large": "refused",
}


class Tally:
    """Counts since the start; whoever reads them takes a copy."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[tuple[str, str | int], ...]] = Counter()
        """Requests, by `poller.outcome` and the attributes of the error."""
        self.rejected: Counter[Rejection] = Counter()
        """Data points, spans or log records that were lost one request at a time, by reason."""

    def answered(self, verdict: Verdict) -> None:
        """Count one request."""
        self.requests[("poller.outcome", _OUTCOMES[verdict.fate]), *verdict.error.items()] += 1
        if verdict.rejected:
            self.rejected["partial_success"] += verdict.rejected

    def lost(self, reason: Rejection, items: int) -> None:
        """Count the items of a request that is dropped."""
        self.rejected[reason] += items

"""Retry pauses that double, for polls, recovery conflicts and OTLP requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """Pauses between two attempts, in seconds; each is twice as long as the previous one."""

    first_pause: float
    longest_pause: float

    def pause(self, retries: int) -> float:
        """Return the pause after the given number of retries, beginning with 0."""
        # The exponent is bounded, because the power would become huge in a long outage.
        return min(self.first_pause * 2.0 ** min(retries, 16), self.longest_pause)


RETRY = RetryConfig(first_pause=1.0, longest_pause=60.0)
"""Pauses between two attempts to run a tick without a server, and to send an OTLP request."""

"""Name the metrics of the pollers that a dashboard looks at."""

from __future__ import annotations

from poller.result import DECLARED

SCOPE = 'job=~"$job",instance=~"$instance"'
"""Matchers of PromQL; the dashboard's variables fill them."""
METRICS = 'poller_signal="metrics"'
"""Only the requests that carry metrics, not those of spans and log records."""


def of(metric: str, *more: str) -> str:
    """A metric of those pollers; `more` are further matchers."""
    return f"{metric}{{{','.join((SCOPE, *more))}}}"


def stale_count() -> str:
    """PromQL for the number of queries without values, except those whose `requires` is not met."""
    stale = of("poller_query_state", 'poller_state="stale"')
    declared = of("poller_query_state", 'poller_state="skipped"', f'poller_reason=~"{"|".join(DECLARED)}"')
    return f"count({stale} == 1 unless on (job, instance, poller_query_name) ({declared} == 1)) or vector(0)"

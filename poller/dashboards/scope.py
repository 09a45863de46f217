"""Name the metrics of the pollers that a dashboard looks at."""

from __future__ import annotations

from poller.result import DECLARED

SCOPE = 'job=~"$job",instance=~"$instance"'
"""Matchers of PromQL; the dashboard's variables fill them."""


def of(metric: str, *more: str) -> str:
    """A metric of those pollers; `more` are further matchers."""
    return f"{metric}{{{','.join((SCOPE, *more))}}}"


def stale_count() -> str:
    """How many queries have no values; not those whose `requires` is not met, which is as declared."""
    declared = of("poller_query_state", 'poller_state="skipped"', f'poller_reason=~"{"|".join(DECLARED)}"')
    return (
        f"sum({of('poller_query_stale')} unless on (job, instance, poller_query_name) ({declared} == 1)) "
        "or vector(0)"
    )

"""PromQL expressions of the dashboards."""

from __future__ import annotations

from collections.abc import Iterator

from poller.model.result import DECLARED
from poller.tools.generate.grafana import Panel, Target, Text, graph, listing, states

SCOPE = 'job=~"$job",instance=~"$instance"'
"""PromQL matchers, filled in by the variables of the dashboard."""
METRICS = 'poller_signal="metrics"'
"""Matcher for requests with metrics, as opposed to spans and log records."""


def of(metric: str, *more: str) -> str:
    """Selector of a metric for the chosen pollers; `more` are further matchers."""
    return f"{metric}{{{','.join((SCOPE, *more))}}}"


def increase(counter: str, by: str, window: str = "1h") -> str:
    """PromQL for the increase of `counter`, a selector, in `window`, summed up by the labels `by`.

    `increase` ignores the first event of a series, because the series begins with it. The value of a series
    that begins in the window is its increase. A series that was interrupted does not begin again.
    """
    new = f"{counter} unless last_over_time({counter}[1d] offset {window})"
    return f"sum by ({by}) ({new} or increase({counter}[{window}]))"


def stale_count() -> str:
    """PromQL for the number of queries without values, except those whose `requires` is not met."""
    stale = of("poller_query_state", 'poller_state="stale"')
    declared = of("poller_query_state", 'poller_state="skipped"', f'poller_reason=~"{"|".join(DECLARED)}"')
    return f"count({stale} == 1 unless on (job, instance, poller_query_name) ({declared} == 1)) or vector(0)"


_QUERY = "{{poller_query_name}}"
_TICK = "{{poller_tick_name}}"
_STATES = {
    1: ("ok", "green"),
    2: ("estimated", "blue"),
    3: ("stale", "purple"),
    4: ("skipped", "yellow"),
    5: ("failed", "red"),
}
"""Values of `poller.state` by their number in the time line, which shows the highest of several."""


def queries() -> Iterator[Panel]:
    """Panels for the state, age and series of every query."""
    # A query without a state series is ok; every query reports its number of series.
    state = " or ".join(
        f"""{number} * {of("poller_query_state", f'poller_state="{name}"')}"""
        if name != "ok"
        else f"0 * {of('poller_query_series')} + {number}"
        for number, (name, _) in _STATES.items()
    )
    yield states(
        Text(
            "State of every query",
            "The result of the last poll of each query; stale: its values are withheld (max_age).",
        ),
        Target(f"max by (instance, poller_query_name) ({state})", "{{instance}} {{poller_query_name}}"),
        _STATES,
    )
    yield listing(
        Text("Not ok, and why", "Queries whose last poll was not ok, with error.type or reason."),
        "none",
        {"now": f"{of('poller_query_state')} == 1"},
        {
            "poller_query_name": "query",
            "poller_state": "state",
            "error_type": "error.type",
            "poller_reason": "reason",
            "instance": "poller",
        },
        none="every query is ok",
    )
    yield graph(
        Text("Age", "Time since the last successful poll."),
        "s",
        [Target(f"time() - {of('poller_query_last_success_seconds')}", _QUERY)],
    )
    yield graph(
        Text("Series", "Series of each query."),
        "short",
        [Target(of("poller_query_series"), _QUERY)],
    )


def polls() -> Iterator[Panel]:
    """Panels for the duration and the results of polls."""
    duration = "poller_poll_duration_seconds"
    buckets = f"rate({of(duration + '_bucket')}[1h])"
    yield graph(
        Text(
            "Duration, 95th percentile",
            "Longest time that the fastest 95 % of an hour's polls used the connection.",
        ),
        "s",
        [Target(f"histogram_quantile(0.95, sum by (le, poller_tick_name) ({buckets}))", _TICK)],
    )
    yield graph(
        Text("Duration of the last poll", "Time for which the last poll of each query used the connection."),
        "s",
        [Target(of("poller_query_duration_seconds"), _QUERY)],
    )
    yield graph(
        Text(
            "Share of the database's time",
            "Part of an hour in which a tick used the connection.",
        ),
        "percentunit",
        [Target(f"sum by (poller_tick_name) (rate({of(duration + '_sum')}[1h]))", _TICK)],
    )
    yield graph(
        Text("Polls in an hour, by state", "Results of the polls in an hour."),
        "short",
        [Target(increase(of("poller_polls_total"), "poller_state"), "{{poller_state}}")],
    )
    failed = of("poller_polls_total", 'poller_state="failed"')
    rejected = of("poller_query_quarantined_total")
    yield graph(
        Text("Failures in an hour, by SQLSTATE", "By query, error.type, SQLSTATE and kind of conflict."),
        "short",
        [
            Target(
                increase(failed, "poller_query_name, error_type, db_response_status_code, poller_conflict")
                + " > 0",
                _QUERY + " {{error_type}} {{db_response_status_code}} {{poller_conflict}}",
            )
        ],
    )
    yield graph(
        Text("Data points rejected in an hour", "Rows that were rejected and not exported, by reason."),
        "short",
        [
            Target(
                increase(rejected, "poller_query_name, poller_reason") + " > 0",
                _QUERY + " {{poller_reason}}",
            ),
            Target(
                increase(of("poller_query_folded_total"), "poller_query_name") + " > 0",
                _QUERY + " added up in `other`",
            ),
        ],
    )
    yield graph(
        Text("Ticks skipped in an hour", "Ticks that were due while the previous one was still running."),
        "short",
        [Target(increase(of("poller_tick_overruns_total"), "poller_tick_name") + " > 0", _TICK)],
    )

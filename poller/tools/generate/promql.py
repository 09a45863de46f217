"""PromQL expressions of the dashboards."""

from __future__ import annotations

from collections.abc import Iterator

from poller.model.result import DECLARED
from poller.tools.generate.grafana import Expression, Panel, Text, graph, listing, states

PROCESSES = 'job=~"$job",instance=~"$instance"'
"""PromQL matchers of the chosen pollers, filled in by the variables of the dashboard."""
TARGETS = 'job=~"$job",instance=~"$target"'
"""Matchers of the chosen targets. Without POLLER_TARGETS these are the chosen pollers."""
METRICS = 'poller_signal="metrics"'
"""Matcher for requests with metrics, as opposed to spans and log records."""


def of(metric: str, *more: str) -> str:
    """Selector of a metric of the chosen pollers themselves; `more` are further matchers."""
    return f"{metric}{{{','.join((PROCESSES, *more))}}}"


def of_targets(metric: str, *more: str) -> str:
    """Selector of a metric of the chosen targets; `more` are further matchers."""
    return f"{metric}{{{','.join((TARGETS, *more))}}}"


def of_state(state: str, *more: str) -> str:
    """Selector of the queries of the chosen targets in a state."""
    return of_targets("poller_query_state", f'poller_state="{state}"', *more)


def query_count() -> str:
    """PromQL for the number of queries of all chosen targets, at any level of POLLER_SELF_METRICS."""
    by = "by (job, instance)"
    each = of_targets("poller_query_series")
    return f"sum(count {by} ({each}) or sum {by} ({of_targets('poller_target_queries')}))"


def increase(counter: str, by: str, window: str = "1h") -> str:
    """PromQL for the increase of `counter`, a selector, in `window`, summed up by the labels `by`.

    `increase` ignores the first event of a series, because the series begins with it. The value of a series
    that begins in the window is its increase. A series that was interrupted does not begin again.
    """
    new = f"{counter} unless last_over_time({counter}[1d] offset {window})"
    return f"sum by ({by}) ({new} or increase({counter}[{window}]))"


def stale_count() -> str:
    """PromQL for the number of queries without values, except those whose `requires` is not met."""
    stale = of_targets("poller_query_state", 'poller_state="stale"')
    declared = of_targets(
        "poller_query_state", 'poller_state="skipped"', f'poller_reason=~"{"|".join(DECLARED)}"'
    )
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
        f"{number} * {of_state(name)}"
        if name != "ok"
        else f"0 * {of_targets('poller_query_series')} + {number}"
        for number, (name, _) in _STATES.items()
    )
    yield states(
        Text(
            "State of every query",
            "The result of the last poll of each query; stale: its values are withheld (max_age).",
        ),
        Expression(f"max by (instance, poller_query_name) ({state})", "{{instance}} {{poller_query_name}}"),
        _STATES,
    )
    yield listing(
        Text("Not ok, and why", "Queries whose last poll was not ok, with error.type or reason."),
        "none",
        {"now": f"{of_targets('poller_query_state')} == 1"},
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
        [Expression(f"time() - {of_targets('poller_query_last_success_seconds')}", _QUERY)],
    )
    yield graph(
        Text("Series", "Series of each query."),
        "short",
        [Expression(of_targets("poller_query_series"), _QUERY)],
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
        [Expression(f"histogram_quantile(0.95, sum by (le, poller_tick_name) ({buckets}))", _TICK)],
    )
    yield graph(
        Text("Duration of the last poll", "Time for which the last poll of each query used the connection."),
        "s",
        [Expression(of_targets("poller_query_duration_seconds"), _QUERY)],
    )
    yield graph(
        Text(
            "Share of the database's time",
            "Part of an hour in which a tick used the connection.",
        ),
        "percentunit",
        [Expression(f"sum by (poller_tick_name) (rate({of(duration + '_sum')}[1h]))", _TICK)],
    )
    yield graph(
        Text("Polls in an hour, by state", "Results of the polls in an hour."),
        "short",
        [Expression(increase(of("poller_polls_total"), "poller_state"), "{{poller_state}}")],
    )
    failed = of("poller_polls_total", 'poller_state="failed"')
    rejected = of("poller_query_quarantined_total")
    yield graph(
        Text("Failures in an hour, by SQLSTATE", "By query, error.type, SQLSTATE and kind of conflict."),
        "short",
        [
            Expression(
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
            Expression(
                increase(rejected, "poller_query_name, poller_reason") + " > 0",
                _QUERY + " {{poller_reason}}",
            ),
            Expression(
                increase(of("poller_query_folded_total"), "poller_query_name") + " > 0",
                _QUERY + " added up in `other`",
            ),
        ],
    )
    yield graph(
        Text("Ticks skipped in an hour", "Ticks that were due while the previous one was still running."),
        "short",
        [Expression(increase(of("poller_tick_overruns_total"), "poller_tick_name") + " > 0", _TICK)],
    )

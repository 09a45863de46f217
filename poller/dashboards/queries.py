"""Draw how the poller's queries and their polls are doing."""

from __future__ import annotations

from collections.abc import Iterator

from poller.dashboards.panels import Panel, Target, Text, graph, listing, states
from poller.dashboards.scope import of

_QUERY = "{{poller_query_name}}"
_STATES = {
    1: ("ok", "green"),
    2: ("estimated", "blue"),
    3: ("skipped", "yellow"),
    4: ("failed", "red"),
    5: ("stale", "purple"),
}
"""Words of `poller.state` by the number that stands for each in the time line."""


def queries() -> Iterator[Panel]:
    """How every query stands, and since when."""
    told = " or ".join(
        f"""{number} * {of("poller_query_state", f'poller_state="{word}"')}"""
        for number, (word, _) in _STATES.items()
    )
    yield states(
        Text(
            "State of every query",
            "What the last poll of each query came to; stale: none ended within its max_age.",
        ),
        Target(f"max by (instance, poller_query_name) ({told})", "{{instance}} {{poller_query_name}}"),
        _STATES,
    )
    yield listing(
        Text(
            "Not ok, and why", "The queries whose last poll was anything but ok, with error.type or reason."
        ),
        "none",
        {"now": f"""{of("poller_query_state", 'poller_state!="ok"')} == 1"""},
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
        Text(
            "Age in intervals",
            "Time since the last successful poll, in intervals of each query. From 3 on its values are "
            "withheld, unless the query says otherwise (max_age).",
        ),
        "none",
        [Target(f"{of('poller_query_age_seconds')} / {of('poller_query_interval_seconds')}", _QUERY)],
    )
    yield graph(
        Text("Age", "Time since the last successful poll."),
        "s",
        [Target(of("poller_query_age_seconds"), _QUERY)],
    )
    yield graph(
        Text("Series", "Series that each query shows."), "short", [Target(of("poller_query_series"), _QUERY)]
    )


def polls() -> Iterator[Panel]:
    """What the polls cost, and what they came to."""
    duration = "poller_poll_duration_seconds"
    buckets = f"rate({of(duration + '_bucket')}[1h])"
    yield graph(
        Text("Duration, 95th percentile", "Time that 95 % of an hour's polls kept the connection at most."),
        "s",
        [Target(f"histogram_quantile(0.95, sum by (le, poller_query_name) ({buckets}))", _QUERY)],
    )
    yield graph(
        Text("Share of the database's time", "Of an hour, how much each query kept the one connection."),
        "percentunit",
        [Target(f"sum by (poller_query_name) (rate({of(duration + '_sum')}[1h]))", _QUERY)],
    )
    yield graph(
        Text("Polls in an hour, by state", "What an hour's polls came to."),
        "short",
        [Target(f"sum by (poller_state) (increase({of('poller_polls_total')}[1h]))", "{{poller_state}}")],
    )
    failed = of("poller_polls_total", 'poller_state="failed"')
    refused = of("poller_query_quarantined_total")
    yield graph(
        Text(
            "Failures in an hour, by SQLSTATE", "By query, error.type and SQLSTATE; conflicts by their kind."
        ),
        "short",
        [
            Target(
                "sum by (poller_query_name, error_type, db_response_status_code, poller_conflict) "
                f"(increase({failed}[1h])) > 0",
                _QUERY + " {{error_type}} {{db_response_status_code}} {{poller_conflict}}",
            )
        ],
    )
    yield graph(
        Text("Data points refused in an hour", "Rows that are no true numbers, by reason: never exported."),
        "short",
        [
            Target(
                f"sum by (poller_query_name, poller_reason) (increase({refused}[1h])) > 0",
                _QUERY + " {{poller_reason}}",
            ),
            Target(
                f"sum by (poller_query_name) (increase({of('poller_query_folded_total')}[1h])) > 0",
                _QUERY + " summed up in `other`",
            ),
        ],
    )
    yield graph(
        Text("Ticks left out in an hour", "Ticks that were due while the one before still ran."),
        "short",
        [
            Target(
                f"sum by (poller_tick_name) (increase({of('poller_tick_overruns_total')}[1h])) > 0",
                "{{poller_tick_name}}",
            )
        ],
    )

"""Grafana dashboard of the poller itself: queries, standby and exports."""

from __future__ import annotations

from collections.abc import Iterator

from poller.tools.generate.grafana import (
    DashboardProperties,
    Level,
    Panel,
    Section,
    Target,
    Text,
    graph,
    numbers,
    to_json,
)
from poller.tools.generate.promql import METRICS, increase, of, polls, queries, stale_count

UID = "obscura-poller"
_GREEN_RED = (Level(None, "green"), Level(1, "red"))


def poller_dashboard() -> str:
    """Dashboard of the poller itself, as JSON."""
    frame = DashboardProperties(
        uid=UID,
        title="Poller",
        description="State of the poller itself. Written by `poller dashboard poller`.",
        since="now-24h",
        instances=True,
        link=("Inventory", "obscura-poller-inventory"),
    )
    return to_json(
        frame,
        [
            Section("", [*_head()]),
            Section("Queries", [*queries()]),
            Section("Polls", [*polls()]),
            Section("Replica", [*_replica()]),
            Section("Delivery", [*_delivery()]),
            Section("Query files", [*_query_files()]),
        ],
    )


def _head() -> Iterator[Panel]:
    yield numbers(
        Text("Pollers", "Pollers of this service that export."),
        "none",
        [Target(f"count(group by (job, instance) ({of('poller_query_series')}))")],
    )
    yield numbers(
        Text("Queries", "Queries that they run."),
        "none",
        [Target(f"count({of('poller_query_series')})")],
    )
    for title, state, color in (("Failed", "failed", "red"), ("Skipped", "skipped", "yellow")):
        yield numbers(
            Text(title, f"Queries whose state is {state}."),
            "none",
            [Target(f"""sum({of("poller_query_state", f'poller_state="{state}"')}) or vector(0)""")],
            levels=(Level(None, "green"), Level(1, color)),
        )
    yield numbers(
        Text(
            "Stale",
            "Queries whose values are withheld: too old, or none yet, except if their `requires` is not met.",
        ),
        "none",
        [Target(stale_count())],
        levels=_GREEN_RED,
    )
    yield numbers(
        Text("Waiting requests", "Requests that the collector has not accepted yet."),
        "none",
        [Target(f"sum({of('poller_export_spool_requests', METRICS)})")],
        levels=(Level(None, "green"), Level(5, "red")),
    )


def _replica() -> Iterator[Panel]:
    place = "{{server_address}}:{{server_port}}"
    yield graph(
        Text(
            "Replay lag",
            "0 on the standby of an idle primary; grows if the link is lost; absent while unknown.",
        ),
        "s",
        [Target(of("poller_replica_lag_seconds"), place)],
        span=8,
    )
    yield graph(
        Text(
            "Age of the data",
            "Upper bound on the age of the primary's state that the values reflect.",
        ),
        "s",
        [Target(of("poller_replica_data_age_seconds"), place)],
        span=8,
    )
    yield graph(
        Text("Role and timeline", "Standby: 1, primary: 0. The timeline grows by one at a promotion."),
        "none",
        [
            Target(of("poller_replica_standby"), f"{place} is a standby"),
            Target(of("poller_replica_timeline"), f"{place} timeline"),
        ],
        span=8,
    )


def _delivery() -> Iterator[Panel]:
    requests = of("poller_export_requests_total")
    by_reason = "poller_signal, poller_reason"
    yield graph(
        Text(
            "Requests in five minutes, by outcome",
            "Failed requests are retried, rejected requests are dropped.",
        ),
        "short",
        [
            Target(
                increase(requests, "poller_signal, poller_outcome, error_type", "5m"),
                "{{poller_signal}} {{poller_outcome}} {{error_type}}",
            )
        ],
    )
    yield graph(
        Text(
            "Lost in an hour",
            "Data points, spans and log records that the collector rejected, and dropped requests.",
        ),
        "short",
        [
            Target(
                increase(of("poller_export_rejected_total"), by_reason) + " > 0",
                "{{poller_signal}}: {{poller_reason}}",
            ),
            Target(
                increase(of("poller_export_dropped_total"), by_reason) + " > 0",
                "requests of {{poller_signal}}: {{poller_reason}}",
            ),
        ],
    )
    for title, description, unit, name in (
        ("Spool: requests", "Requests that wait for delivery.", "short", "poller_export_spool_requests"),
        ("Spool: size", "Size of the waiting requests.", "bytes", "poller_export_spool_size_bytes"),
        ("Spool: age", "Age of the oldest waiting request.", "s", "poller_export_spool_age_seconds"),
    ):
        yield graph(
            Text(title, description), unit, [Target(of(name), "{{instance}} {{poller_signal}}")], span=8
        )


def _query_files() -> Iterator[Panel]:
    yield numbers(
        Text(
            "Query files rejected",
            "0: the files on disk are in use. 1: they were rejected; the previous queries run.",
        ),
        "none",
        [Target(f"1 - min({of('poller_config_reload_success')})")],
        levels=_GREEN_RED,
        span=6,
        height=6,
    )
    yield numbers(
        Text("Read since", "Time since the running queries were read."),
        "s",
        [Target(f"time() - max({of('poller_config_reload_last_success_seconds')})")],
        span=6,
        height=6,
    )
    yield graph(
        Text("Reloads in an hour", "By outcome."),
        "short",
        [Target(increase(of("poller_config_reloads_total"), "poller_outcome"), "{{poller_outcome}}")],
        height=6,
    )

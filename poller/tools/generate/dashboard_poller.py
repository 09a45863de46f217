"""Grafana dashboard of the poller itself: queries, standby and exports."""

from __future__ import annotations

from collections.abc import Iterator

from poller.tools.generate.grafana import (
    DashboardProperties,
    Expression,
    Level,
    Panel,
    Section,
    Text,
    graph,
    listing,
    numbers,
    states,
    to_json,
)
from poller.tools.generate.promql import (
    METRICS,
    increase,
    of,
    of_state,
    of_targets,
    polls,
    queries,
    query_count,
    stale_count,
)

UID = "obscura-poller"
_GREEN_RED = (Level(None, "green"), Level(1, "red"))
_MOST_LINES = 25


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
            # Collapsed, because they are empty without POLLER_TARGETS and POLLER_LEADER_ELECTION.
            Section("Targets", [*_targets()], collapsed=True),
            Section("Leader election", [*_leader()], collapsed=True),
        ],
    )


def _head() -> Iterator[Panel]:
    yield numbers(
        Text("Pollers", "Pollers of this service that export."),
        "none",
        [Expression(f"count(group by (job, instance) ({of('poller_export_spool_requests')}))")],
    )
    yield numbers(
        Text("Queries", "Queries that they run."),
        "none",
        [Expression(query_count())],
    )
    for title, state, color in (("Failed", "failed", "red"), ("Skipped", "skipped", "yellow")):
        yield numbers(
            Text(title, f"Queries whose state is {state}."),
            "none",
            [Expression(f"sum({of_state(state)}) or vector(0)")],
            levels=(Level(None, "green"), Level(1, color)),
        )
    yield numbers(
        Text(
            "Stale",
            "Queries whose values are withheld: too old, or none yet, except if their `requires` is not met.",
        ),
        "none",
        [Expression(stale_count())],
        levels=_GREEN_RED,
    )
    yield numbers(
        Text("Waiting requests", "Requests that the collector has not accepted yet."),
        "none",
        [Expression(f"sum({of('poller_export_spool_requests', METRICS)})")],
        levels=(Level(None, "green"), Level(5, "red")),
    )


def _replica() -> Iterator[Panel]:
    place = "{{server_address}}:{{server_port}}"

    def of_servers(metric: str) -> str:  # each target of a server reports the server
        return f"max by (server_address, server_port) ({of_targets(metric)})"

    yield graph(
        Text(
            "Replay lag",
            "0 on the standby of an idle primary; grows if the link is lost; absent while unknown.",
        ),
        "s",
        [Expression(of_servers("poller_replica_lag_seconds"), place)],
        span=8,
    )
    yield graph(
        Text(
            "Age of the data",
            "Upper bound on the age of the primary's state that the values reflect.",
        ),
        "s",
        [Expression(of_servers("poller_replica_data_age_seconds"), place)],
        span=8,
    )
    yield graph(
        Text("Role and timeline", "Standby: 1, primary: 0. The timeline grows by one at a promotion."),
        "none",
        [
            Expression(of_servers("poller_replica_standby"), f"{place} is a standby"),
            Expression(of_servers("poller_replica_timeline"), f"{place} timeline"),
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
            Expression(
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
            Expression(
                increase(of("poller_export_rejected_total"), by_reason) + " > 0",
                "{{poller_signal}}: {{poller_reason}}",
            ),
            Expression(
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
            Text(title, description), unit, [Expression(of(name), "{{instance}} {{poller_signal}}")], span=8
        )


def _query_files() -> Iterator[Panel]:
    yield numbers(
        Text(
            "Query files rejected",
            "0: the files on disk are in use. 1: they were rejected; the previous queries run.",
        ),
        "none",
        [Expression(f"1 - min({of('poller_config_reload_success')})")],
        levels=_GREEN_RED,
        span=6,
        height=6,
    )
    yield numbers(
        Text("Read since", "Time since the running queries were read."),
        "s",
        [Expression(f"time() - max({of('poller_config_reload_last_success_seconds')})")],
        span=6,
        height=6,
    )
    yield graph(
        Text("Reloads in an hour", "By outcome."),
        "short",
        [Expression(increase(of("poller_config_reloads_total"), "poller_outcome"), "{{poller_outcome}}")],
        height=6,
    )


def _targets() -> Iterator[Panel]:
    up, since = of_targets("poller_target_up"), of_targets("poller_target_last_success_seconds")
    waiting, delay = of("poller_queue_targets"), of("poller_queue_delay_seconds")
    name = "{{instance}}"
    for title, description, expr, levels in (
        ("Targets", "Targets that the pollers poll.", f"count({up})", ()),
        ("Down", "Targets that the last poll did not reach.", f"count({up} == 0) or vector(0)", _GREEN_RED),
        ("Waiting", "Targets that wait for a connection to an available server.", f"sum({waiting})", ()),
    ):
        yield numbers(Text(title, description), "none", [Expression(expr)], levels=levels, height=8)
    yield listing(
        Text("Targets that are down", "Targets that the last poll did not reach."),
        "none",
        {"up": f"{up} == 0"},
        {"instance": "target"},
        none="every target is up",
    )
    for title, description, unit, expr in (
        ("Targets: age", "Time since the last successful poll of any query.", "s", f"time() - {since}"),
        (
            "Targets: duration",
            "Time that the last tick used the connection.",
            "s",
            of_targets("poller_target_duration_seconds"),
        ),
    ):
        text = Text(title, f"{description} At most {_MOST_LINES} targets, the greatest at each moment.")
        yield graph(text, unit, [Expression(f"topk({_MOST_LINES}, {expr})", name)])
    yield graph(
        Text("Targets: queries by state", "Queries of all chosen targets."),
        "short",
        [
            Expression(
                f"sum by (poller_state) ({of_targets('poller_target_queries')})",
                "{{poller_state}}",
            )
        ],
    )
    yield graph(
        Text("Targets: longest wait", "Time that the first of the waiting targets has waited."),
        "s",
        [Expression(delay, name)],
    )


def _leader() -> Iterator[Panel]:
    by = "instance, poller_leader_election"
    name = "{{instance}} {{poller_leader_election}}"
    yield states(
        Text(
            "Leader",
            "Each poller: it leads and polls, or follows. The last state of a poller that was killed remains "
            "for five minutes.",
        ),
        Expression(f"max by ({by}) ({of('poller_leader')})", name),
        {1: ("leader", "green"), 0: ("follower", "blue")},
        span=16,
        height=8,
    )
    yield graph(
        Text("Changes in an hour", "Times that each poller became the leader or ceased to be it."),
        "short",
        [Expression(increase(of("poller_leader_changes_total"), by), name)],
        span=8,
    )

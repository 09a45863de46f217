"""Grafana dashboard of the queries' metrics, with growth, projection and marks on inexact values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from poller.model.duration import format_duration
from poller.model.prometheus import label_name, metric_name
from poller.model.query import MetricDefinition, QueryDefinition
from poller.tools.generate.grafana import (
    DASHED,
    DOTTED,
    WIDTH,
    DashboardProperties,
    Expression,
    Level,
    Panel,
    Section,
    Text,
    graph,
    listing,
    numbers,
    to_json,
    unit_id,
)
from poller.tools.generate.promql import of_state, of_targets, query_count, stale_count

UID = "obscura-poller-inventory"
GROWTH_OVER = "1d"
PROJECTION_FROM, PROJECTION_DAYS = "7d", 30
RATE_OVER = 900.0
"""Minimum window of a rate, in seconds."""
SHORT = 900.0
"""Longest interval in seconds for which the increase in an hour is meaningful."""
MOST_LINES = 25
QUANTILES = (0.5, 0.9, 0.99)
LE = "le"
"""Label with the upper bound of a bucket."""


def inventory(queries: Sequence[QueryDefinition]) -> str:
    """Dashboard of all metrics of `queries`, as JSON."""
    fed: dict[str, list[tuple[QueryDefinition, MetricDefinition]]] = {}
    for query in queries:
        for metric in query.metrics:
            fed.setdefault(metric.name, []).append((query, metric))
    panels: list[Panel] = []
    for name, pairs in fed.items():
        feeders = {query.name: query for query, _ in pairs}
        metrics = [metric for _, metric in pairs]
        labels = _labels(metrics)
        if name.endswith("_bucket") and LE in labels:
            (_, total), *_ = fed.get(f"{name.removesuffix('_bucket')}_sum", pairs)
            panels.append(_quantiles(metrics[0], total.unit, [label for label in labels if label != LE]))
        else:
            panels += _panels(metrics, labels, list(feeders.values()))
    frame = DashboardProperties(
        uid=UID,
        title="Inventory",
        description="Metrics of the poller's queries. Written by `poller dashboard inventory`.",
        since="now-7d",
        instances=False,
        link=("Poller", "obscura-poller"),
    )
    return to_json(frame, [Section("", [*_head()]), Section("", panels)])


def _head() -> Iterator[Panel]:
    def count(title: str, description: str, expr: str, bad: str) -> Panel:
        levels = [Level(None, "green"), Level(1, bad)]
        return numbers(Text(title, description), "none", [Expression(expr)], span=6, levels=levels)

    yield numbers(
        Text("Queries", "Queries that the poller runs."),
        "none",
        [Expression(query_count())],
        span=6,
    )
    yield count(
        "Estimated",
        "Queries whose current values are estimates, drawn as dashed lines.",
        f"count({of_state('estimated')} == 1) or vector(0)",
        "orange",
    )
    yield count(
        "Stale",
        "Queries whose values are too old to show, or that have none yet; the last value is drawn dotted.",
        stale_count(),
        "red",
    )
    yield numbers(
        Text(
            "Oldest value",
            "Longest time since the last successful poll of a query, or of any query of a target "
            "(POLLER_SELF_METRICS=target).",
        ),
        "s",
        [
            Expression(
                f"time() - min({of_targets('poller_query_last_success_seconds')} or on (job, instance) "
                f"{of_targets('poller_target_last_success_seconds')})"
            )
        ],
        span=6,
    )


def _labels(fed: Sequence[MetricDefinition]) -> list[str]:
    names = (name for definition in fed for name in (*definition.attribute_columns, *definition.attributes))
    return list(dict.fromkeys(map(label_name, names)))


def _panels(
    fed: Sequence[MetricDefinition], labels: Sequence[str], queries: Sequence[QueryDefinition]
) -> Iterator[Panel]:
    metric = fed[0]
    if metric.type == "counter":
        yield from _counter(metric, labels, queries)
        return
    series = of_targets(metric_name(metric.name, metric.unit, metric.type))
    growth = f"deriv({series}[{GROWTH_OVER}]) * 86400"
    projection = f"predict_linear({series}[{PROJECTION_FROM}], {PROJECTION_DAYS} * 86400)"
    unit = unit_id(metric.unit)
    yield graph(
        Text(metric.name, _description(metric, queries)),
        unit,
        _marked(series, labels, queries),
        span=14,
    )
    columns = {"now": series, "growth per day": growth, f"in {PROJECTION_DAYS} days": projection}
    text = Text(
        f"{metric.name}: growth",
        f"Growth per day: the slope of the last day. In {PROJECTION_DAYS} days: a straight line through "
        f"the last {PROJECTION_FROM.removesuffix('d')} days, not a forecast from causes.",
    )
    yield _figures(text, unit, columns, labels)


def _quantiles(buckets: MetricDefinition, unit: str, labels: Sequence[str]) -> Panel:
    """Quantiles of a histogram; its gauges describe the present, so they have no rate."""
    series = of_targets(metric_name(buckets.name, buckets.unit))
    name = buckets.name.removesuffix("_bucket")
    return graph(
        Text(f"{name}: quantiles", f"{buckets.description} Each quantile is interpolated in its bucket."),
        unit_id(unit),
        [
            Expression(
                _greatest(f"histogram_quantile({share}, {series})", labels), f"{_legend(labels)} {share:.0%}"
            )
            for share in QUANTILES
        ],
        span=WIDTH,
    )


def _counter(
    metric: MetricDefinition, labels: Sequence[str], queries: Sequence[QueryDefinition]
) -> Iterator[Panel]:
    """Rate and daily increase of a counter; its value mostly depends on when it started."""
    series = of_targets(metric_name(metric.name, metric.unit, metric.type))
    # The window must contain several polls; otherwise the rate is 0 between two polls.
    window = format_duration(max(RATE_OVER, *(4 * query.longest_interval for query in queries)))
    rate, unit = f"rate({series}[{window}])", unit_id(f"{'' if metric.unit == '1' else metric.unit}/s")
    yield graph(
        Text(metric.name, _description(metric, queries)),
        unit,
        [Expression(_greatest(rate, labels), _legend(labels))],
        span=14,
    )
    columns = {"in the last hour": f"increase({series}[1h])", "in the last day": f"increase({series}[1d])"}
    if max(query.longest_interval for query in queries) > SHORT:
        del columns["in the last hour"]
    text = Text(f"{metric.name}: counted", "Increase of the counter; resets do not count as a decrease.")
    yield _figures(text, unit_id(metric.unit), columns, labels)


def _figures(text: Text, unit: str, columns: Mapping[str, str], labels: Sequence[str]) -> Panel:
    """Current figures: a table if there are several series."""
    if labels:
        return listing(text, unit, columns, {label: label for label in labels}, span=WIDTH - 14)
    targets = [Expression(expr, heading) for heading, expr in columns.items()]
    return numbers(text, unit, targets, span=WIDTH - 14, height=8, trend=True)


def _marked(series: str, labels: Sequence[str], queries: Sequence[QueryDefinition]) -> list[Expression]:
    """The exact values, the estimates, and the last values of stale queries."""
    estimated = _of_queries("poller_query_state", queries, 'poller_state="estimated"') + " == 1"
    running = _of_queries("poller_query_series", queries)
    withheld = _of_queries("poller_query_state", queries, 'poller_state="stale"') + " == 1"
    stale = withheld
    if len(queries) > 1:  # such a metric is stale if all its queries are
        fresh = f"{running} unless on (job, instance, poller_query_name) ({withheld})"
        stale = f"{running} unless on (job, instance) ({fresh})"
    legend = _legend(labels)
    return [
        Expression(_greatest(f"{series} unless on (job, instance) ({estimated} or {stale})", labels), legend),
        Expression(
            _greatest(
                f"{series} and on (job, instance) ({estimated}) unless on (job, instance) ({stale})", labels
            ),
            f"{legend} (estimated)",
            DASHED,
            None if labels else "orange",
        ),
        Expression(
            _greatest(f"last_over_time({series}[1d]) and on (job, instance) ({stale})", labels),
            f"{legend} (stale: the last value)",
            DOTTED,
            "gray",
        ),
    ]


def _greatest(expr: str, labels: Sequence[str]) -> str:
    return f"topk({MOST_LINES}, {expr})" if labels else expr


def _legend(labels: Sequence[str]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels) or "{{instance}}"


def _of_queries(metric: str, queries: Sequence[QueryDefinition], *more: str) -> str:
    # Two backslashes, because a string of PromQL consumes one.
    names = "|".join(query.name.replace(".", r"\\.") for query in queries)
    return of_targets(metric, f'poller_query_name=~"{names}"', *more)


def _description(metric: MetricDefinition, queries: Sequence[QueryDefinition]) -> str:
    polled = ", ".join(
        f"`{query.name}` at `{query.schedule.expression}` {query.schedule.timezone}"
        if query.schedule
        else f"`{query.name}` every {format_duration(query.interval)}"
        for query in queries
    )
    most = f" At most {MOST_LINES} series, the greatest at each moment." if metric.attribute_columns else ""
    marks = "Dashed: an estimate. Dotted: stale, the last value; the current value is unknown."
    if metric.type == "counter":
        marks = "Per second."
    return f"{metric.description}\n\nPolled by {polled}. {marks}{most}"

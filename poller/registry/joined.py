"""Join the metrics that queries feed with the events that a server tells."""

from __future__ import annotations

from collections.abc import Mapping

from poller.catalog import Catalog
from poller.errors import ConfigError, Problem
from poller.events.declaration import Attribute, Metric
from poller.metric import MetricDefinition
from poller.prometheus import metric_name


def joined(catalog: Catalog, events: Mapping[str, Metric]) -> tuple[Metric, ...]:
    """Return every metric, those of queries first, in the order of the files and then of the events.

    Raises ConfigError for each that bears an event's name, in OpenTelemetry or in Prometheus.
    """
    taken = {metric_name(metric.name, metric.unit, metric.instrument): metric for metric in events.values()}
    problems = []
    polled = []
    for name in catalog.metrics:
        metric = _polled(name, catalog)
        if (other := taken.get(metric_name(name, metric.unit, metric.instrument))) is not None:
            what = f"has the name of an event, {other.name}; rename one, or set another POLLER_NAMESPACE"
            problems.append(Problem(f"{metric.source}: {name}", what))
        polled.append(metric)
    if problems:
        raise ConfigError(problems)
    return (*polled, *events.values())


def _polled(name: str, catalog: Catalog) -> Metric:
    feeding = [(query, one) for query in catalog.queries for one in query.metrics if one.name == name]
    queries = list(dict.fromkeys(query.name for query, _ in feeding))
    first = feeding[0][1]
    return Metric(
        event=queries[0],
        name=name,
        instrument=first.type,
        unit=first.unit,
        description=first.description,
        source=f"{'query' if len(queries) == 1 else 'queries'} {', '.join(queries)}",
        since="",
        status="polled",
        attributes=_attributes([one for _, one in feeding]),
        boundaries=(),
        tunes="",
    )


def _attributes(definitions: list[MetricDefinition]) -> tuple[Attribute, ...]:
    columns = dict.fromkeys(name for one in definitions for name in one.attribute_columns)
    fixed: dict[str, dict[str, None]] = {}
    for one in definitions:
        for name, value in one.attributes.items():
            fixed.setdefault(name, {})[str(value)] = None
    opened = [
        Attribute(name, f"The query's column {name}.", open="whatever the database holds, up to max_series")
        for name in columns
    ]
    closed = [
        Attribute(name, "Set by the query file.", tuple(values))
        for name, values in fixed.items()
        if name not in columns
    ]
    return (*opened, *closed)

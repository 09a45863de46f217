"""Metric catalogue, gauges and events, as JSON or Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from poller.events._catalog.declaration import Attribute, Metric
from poller.model.catalog import Catalog
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.prometheus import metric_name
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.text import value_text


def to_json(metrics: Iterable[Metric], generation: str) -> str:
    """JSON object with the name of the generation and the list `metrics`."""
    document = {"generation": generation, "metrics": [_metric(metric) for metric in metrics]}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "event": metric.event,
        "instrument": metric.instrument,
        "unit": metric.unit,
        "description": metric.description,
        "attributes": [_attribute(attribute) for attribute in metric.attributes],
        "boundaries": list(metric.boundaries),
        "prometheus": metric_name(metric.name, metric.unit, metric.instrument),
        "source": metric.source,
        "status": metric.status,
        "since": metric.since or None,
        "tunes": metric.tunes or None,
        "owner": metric.owner or None,
    }


def _attribute(attribute: Attribute) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": attribute.name, "description": attribute.description}
    if attribute.open:
        return entry | {"values": None, "open": attribute.open, "examples": list(attribute.examples)}
    return entry | {"values": list(attribute.values)}


def all_metrics(catalog: Catalog, events: Mapping[str, Metric]) -> tuple[Metric, ...]:
    """Return the metrics of the queries in the order of the files, then those of the events.

    Raises ConfigError with each metric of a query that has the name of an event, in OpenTelemetry or in
    Prometheus.
    """
    by_name = {metric_name(metric.name, metric.unit, metric.instrument): metric for metric in events.values()}
    problems = []
    polled = []
    for name in catalog.metrics:
        metric = _polled(name, catalog)
        if (other := by_name.get(metric_name(name, metric.unit, metric.instrument))) is not None:
            message = f"has the name of the event {other.name}; rename it, or set another POLLER_NAMESPACE"
            problems.append(invalid(f"{metric.source}: {name}", message))
        polled.append(metric)
    if problems:
        raise ConfigError(problems)
    return (*polled, *events.values())


def _polled(name: str, catalog: Catalog) -> Metric:
    feeding = [(query, item) for query in catalog.queries for item in query.metrics if item.name == name]
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
        attributes=_attributes(feeding),
        boundaries=(),
        tunes="",
        owner=", ".join(dict.fromkeys(query.owner for query, _ in feeding if query.owner)),
    )


def _attributes(feeding: list[tuple[QueryDefinition, MetricDefinition]]) -> tuple[Attribute, ...]:
    columns = dict.fromkeys(
        name
        for query, definition in feeding
        for name in definition.attribute_columns
        if name not in query.parameters[0]
    )
    fixed: dict[str, dict[str, None]] = {}
    for query, definition in feeding:
        for attributes in (*query.parameters, definition.attributes):
            for name, value in attributes.items():
                fixed.setdefault(name, {})[value_text(value)] = None
    opened = [
        Attribute(name, f"The query's column {name}.", open="the values in the database, up to max_series")
        for name in columns
    ]
    closed = [
        Attribute(name, "Set by the query file.", tuple(values))
        for name, values in fixed.items()
        if name not in columns
    ]
    return (*opened, *closed)


def to_markdown(metrics: Iterable[Metric]) -> str:
    """Table with one row per metric.

    The last column is the first release of the server with the metric, or `planned`, `added` or `polled`.
    """
    rows = ["| metric | kind, unit | attributes | meaning | from | server |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        unit = f", `{metric.unit}`" if metric.unit else ""
        attributes = "; ".join(map(_attribute_markdown, metric.attributes)) or "-"
        cells = (
            f"`{metric.name}`",
            f"{metric.instrument}{unit}",
            attributes,
            _meaning(metric),
            metric.source,
            metric.since or metric.status,
        )
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _attribute_markdown(attribute: Attribute) -> str:
    values = ", ".join(f"`{value}`" for value in attribute.values or attribute.examples)
    if attribute.open and values:
        values += ", ..."
    return f"`{attribute.name}`" + (f": {values}" if values else "")


def _meaning(metric: Metric) -> str:
    sentences = [metric.description]
    if metric.tunes:
        sentences.append(f"Tunes {metric.tunes}.")
    if metric.owner:
        sentences.append(f"Owner: {metric.owner}.")
    translated = metric_name(metric.name, metric.unit, metric.instrument)
    if translated != metric.name:
        sentences.append(f"In Prometheus `{translated}`.")
    return " ".join(sentences)

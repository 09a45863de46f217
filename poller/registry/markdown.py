"""Tell the catalogue as a table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from poller.events.declaration import Attribute, Metric
from poller.prometheus import metric_name


def to_markdown(metrics: Iterable[Metric]) -> str:
    """One row for each metric.

    The last column says since which release the server has it, or that it is planned, added or polled.
    """
    rows = ["| metric | kind, unit | attributes | meaning | from | server |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        unit = f", `{metric.unit}`" if metric.unit else ""
        attributes = "; ".join(map(_attribute, metric.attributes)) or "-"
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


def _attribute(attribute: Attribute) -> str:
    values = ", ".join(f"`{value}`" for value in attribute.values or attribute.examples)
    if attribute.open and values:
        values += ", ..."
    return f"`{attribute.name}`" + (f": {values}" if values else "")


def _meaning(metric: Metric) -> str:
    told = [metric.description]
    if metric.tunes:
        told.append(f"Tunes {metric.tunes}.")
    translated = metric_name(metric.name, metric.unit, metric.instrument)
    if translated != metric.name:
        told.append(f"In Prometheus `{translated}`.")
    return " ".join(told)

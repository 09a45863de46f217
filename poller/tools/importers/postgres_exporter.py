"""Importer for postgres_exporter's custom queries (`--extend.query-path`).

Source: prometheus-community/postgres_exporter, exporter/{queries,postgres_exporter,namespace,util}.go.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from poller.config.queries.histogram import LE, SUFFIXES, units
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import from_semver, metric_name, unit_of
from poller.tools.importers.node import SourceNode
from poller.tools.importers.sql_columns import columns_of, kinds_of, number
from poller.tools.importers.sql_projection import Columns, identifier, literal, statement

_TIME = re.compile(r"(^|_)(at|since|until|timestamp|date|reset|(vacuum|analyze)(_time)?)$", re.IGNORECASE)
"""Typical names of columns with a point in time."""


def read(files: Sequence[Path], losses: Losses) -> list[DraftQuery]:
    """Return the queries of all namespaces in `files`."""
    drafts: list[DraftQuery] = []
    for source in open_each(files, lambda file: open_yaml(file, losses)):
        if not source.root.is_mapping():
            continue
        before = len(drafts)
        for name, node in source.root.members():
            if not node.is_mapping():
                continue
            if "query" in node:
                drafts += _namespace(name, node)
            else:
                losses.add_loss(node.place, f"{name} has no query", "pass the file of --extend.query-path")
        if len(drafts) > before:
            source.root.report_omitted_labels("", "server")
    return drafts


def _namespace(name: str, node: SourceNode) -> list[DraftQuery]:
    node.report_unknown_keys("query", "metrics", "master", "cache_seconds", "runonserver")
    version = from_semver(node.text("runonserver"))
    if version is None:
        node.report_loss(
            "runonserver",
            f"the versions {node.text('runonserver')}",
            "write requires: server_version: '>=14,<17'",
        )
    if node.flag("master"):
        message = "was run only in the configured database; every poller with this file runs it"
        node.report_change("master", message)
    interval = node.number("cache_seconds") or None
    if interval is None:
        node.report_change(
            "cache_seconds", "was collected at every scrape; the interval is now POLLER_INTERVAL"
        )
    draft = DraftQuery(
        node.place,
        name,
        node.text("query"),
        [],
        comment=node.comment(),
        interval=interval,
        requires={"server_version": version} if version else {},
    )
    return [draft, *_columns(node, draft)]


def _columns(node: SourceNode, draft: DraftQuery) -> list[DraftQuery]:
    """Add the metrics to `draft`; return a query for the buckets of each histogram, which are more rows."""
    declared = [
        (name, column)
        for item in node.items("metrics")
        for name, column in item.members()
        if column.is_mapping()
    ]
    labels = {name: name for name, column in declared if column.text("usage") == "LABEL"}
    columns = Columns(labels)
    histograms = [name for name, column in declared if column.text("usage") == "HISTOGRAM"]
    parts = {f"{name}{suffix}" for name in histograms for suffix in SUFFIXES}
    _undeclared(node, draft, {name for name, _ in declared} | parts)
    buckets: list[DraftQuery] = []
    kinds = kinds_of(statement(draft.sql))
    for name, column in declared:
        column.report_unknown_keys("usage", "description", "metric_mapping")
        usage = column.text("usage")
        expression = ""
        if usage == "MAPPEDMETRIC":
            expression = _mapped(name, column)
        if usage in ("GAUGE", "COUNTER") and kinds.get(name) == "text":
            column.report_loss("usage", f"{name} is a text, not a number", "cast it to a number in the SQL")
            continue
        if usage in ("GAUGE", "COUNTER"):
            expression = number(name, kinds.get(name))
            if name not in kinds and _TIME.search(name):
                message = (
                    f"a timestamp was converted to Unix time; if it is one, write extract(epoch FROM {name})"
                )
                node.source.losses.add_change(column.place, message)
        if usage in ("GAUGE", "COUNTER") or expression:
            original = f"{draft.name}_{name}"
            draft.metrics.append(
                DraftMetric(
                    column.place,
                    original,
                    metric_name(original),
                    column.text("description"),
                    columns.value(name, expression),
                    unit=unit_of(original),
                    attribute_columns=columns.labels,
                    type="counter" if usage == "COUNTER" else "gauge",
                )
            )
        elif usage == "DURATION":
            column.report_loss(
                "usage", f"{name} is a text with a duration", f"write extract(epoch FROM {name})"
            )
        elif usage == "HISTOGRAM" and (missing := _missing(name, draft.sql)):
            message = f"{name} is a histogram without the column {missing}"
            column.report_loss("usage", message, "return it, or name every column with AS")
        elif usage == "HISTOGRAM":
            draft.metrics += [
                _of_histogram(draft, name, column, suffix, columns.value(name + suffix), columns.labels)
                for suffix in ("_sum", "_count")
            ]
            buckets.append(_buckets(draft, name, column, columns.labels))
            column.report_change("usage", f"the buckets of {name} are a query of their own")
        elif usage not in ("LABEL", "DISCARD", "MAPPEDMETRIC"):
            column.report_loss(
                "usage",
                f"the usage of {name} is {usage or 'missing'}",
                "write LABEL, GAUGE, COUNTER or HISTOGRAM",
            )
    draft.computed = columns.computed
    return buckets


def _missing(name: str, sql: str) -> str | None:
    """Return the first column that a histogram lacks; None if all exist or are unknown without a server."""
    known = columns_of(statement(sql))
    names = {column.name for column in known or ()}
    parts = (name, *(name + suffix for suffix in SUFFIXES))
    return next((part for part in parts if known is not None and part not in names), None)


_UNNESTED = """\
SELECT {labels}buckets.le, buckets.value
FROM (
{sql}
) AS source
CROSS JOIN LATERAL (
  SELECT bound::float8::text AS le, value
  FROM unnest(source.{bounds}, source.{values}) AS bucket (bound, value)
  WHERE bound < 'Infinity' AND value IS NOT NULL
  UNION ALL
  SELECT '+Inf', source.{count}
) AS buckets"""


def _buckets(draft: DraftQuery, name: str, column: SourceNode, labels: tuple[str, ...]) -> DraftQuery:
    """Return a query with a row for each element of the arrays, which have bounds and cumulative counts."""
    sql = _UNNESTED.format(
        labels="".join(f"source.{identifier(label)}, " for label in labels),
        sql=textwrap.indent(statement(draft.sql), "  "),
        bounds=identifier(name),
        values=identifier(f"{name}_bucket"),
        count=identifier(f"{name}_count"),
    )
    metric = _of_histogram(draft, name, column, "_bucket", "value", (*labels, LE))
    return replace(draft, name=f"{draft.name}_{name}", sql=sql, metrics=[metric], comment=())


def _of_histogram(
    draft: DraftQuery, name: str, column: SourceNode, suffix: str, value: str, labels: tuple[str, ...]
) -> DraftMetric:
    original = f"{draft.name}_{name}"
    # Prometheus appends the unit 1 to the name of a gauge, after `_sum`.
    unit = unit_of(original).removeprefix("1")
    return DraftMetric(
        column.place,
        original + suffix,
        metric_name(original + suffix),
        column.text("description"),
        value,
        unit=units(unit)[suffix],
        attribute_columns=labels,
    )


def _undeclared(node: SourceNode, draft: DraftQuery, declared: Container[str]) -> None:
    """Report columns that `metrics` does not list; the tool exports their numbers as untyped metrics."""
    columns = columns_of(statement(draft.sql))
    if columns is None and "*" in draft.sql:
        message = (
            f"columns of the * in {draft.name} that `metrics` does not list, exported as untyped metrics"
        )
        node.report_loss("query", message, "name every column in the SQL and in `metrics`")
    for name in dict.fromkeys(
        column.name for column in columns or () if column.name not in declared and column.kind != "text"
    ):
        message = f"{draft.name}_{name}, exported as an untyped metric because `metrics` does not list it"
        node.report_loss("query", message, "add it to `metrics` with the usage GAUGE, LABEL or DISCARD")


def _mapped(name: str, column: SourceNode) -> str:
    """Return a CASE expression that maps each text to its number; empty if there is none."""
    mapping = column.entries("metric_mapping")
    if not mapping:
        column.report_loss(
            "usage", f"{name} has no metric_mapping", "write CASE ... WHEN ... THEN ... END in SQL"
        )
        return ""
    numbers = [(text, column.child("metric_mapping").number(text)) for text, _ in mapping]
    cases = [f"WHEN {literal(text)} THEN {literal(number)}" for text, number in numbers if number is not None]
    return f"CASE {identifier(name)}::text {' '.join(cases)} END" if cases else ""

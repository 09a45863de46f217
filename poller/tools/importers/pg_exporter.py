"""Importer for the collectors of pg_exporter (Vonng, pgsty).

Source: pgsty/pg_exporter 1.4, config/0000-doc.yml and exporter/{query,column,server}.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import metric_name, unit_of, version_range
from poller.tools.importers.node import SourceNode
from poller.tools.importers.sql_columns import columns_of, kinds_of, number
from poller.tools.importers.sql_names import relations_of
from poller.tools.importers.sql_projection import Columns, identifier, literal, statement
from poller.tools.importers.sql_types import Kind

_QUERY = (
    "name", "desc", "query", "predicate_queries", "tags", "ttl", "timeout", "priority", "min_version",
    "max_version", "fatal", "skip", "metrics",
)  # fmt: skip
_COLUMN = ("name", "usage", "rename", "bucket", "scale", "default", "description")
_PRIMARY = {"primary", "master", "leader"}
_VALUES = {"GAUGE", "COUNTER", "HISTOGRAM"}
_STANDBY = {"standby", "replica", "slave"}


def read(files: Sequence[Path], losses: Losses) -> list[DraftQuery]:
    """Return the queries of all collectors in `files`; a later one replaces an earlier one of its name."""
    collectors: dict[str, SourceNode] = {}
    for source in open_each(files, lambda file: open_yaml(file, losses)):
        if source.root.is_mapping():
            collectors |= {name: node for name, node in source.root.members() if node.is_mapping()}
    return [draft for name, node in collectors.items() for draft in _collector(name, node)]


def _collector(branch: str, node: SourceNode) -> list[DraftQuery]:
    node.report_unknown_keys(*_QUERY)
    tags = node.texts("tags")
    if node.flag("skip"):
        node.report_change("skip", f"{branch} is omitted, as in pg_exporter")
        return []
    if "pgbouncer" in tags:
        node.report_loss(
            "tags", f"{branch} queries PgBouncer's console", "the poller queries PostgreSQL only"
        )
        return []
    if "predicate_queries" in node:
        node.report_loss("predicate_queries", "a query cannot be the condition of another", "write requires:")
    if node.flag("fatal"):
        node.report_change("fatal", "a query that fails does not affect other queries")
    name, sql = node.text("name") or branch, node.text("query")
    timeout = node.number("timeout")
    if timeout is not None and timeout < 0:
        node.report_change("timeout", "every query has a timeout; it is now POLLER_TIMEOUT")
    draft = DraftQuery(
        node.place,
        branch,
        sql,
        [],
        comment=node.comment(),
        interval=node.number("ttl") or None,
        timeout=timeout if timeout and timeout > 0 else None,
        requires=_requires(node, tags, sql),
    )
    if draft.interval is None:
        node.report_change("ttl", "was collected at every scrape; the interval is now POLLER_INTERVAL")
    histograms = _columns(node, name, draft)
    if draft.metrics or not histograms:
        return [draft, *histograms]
    return [replace(histograms[0], name=branch), *histograms[1:]]


def _requires(node: SourceNode, tags: Sequence[str], sql: str) -> dict[str, Any]:
    requires: dict[str, Any] = {}
    columns: dict[str, list[str]] = {}
    extensions: list[str] = []
    for tag in tags:
        kind, _, name = tag.partition(":")
        if tag in _PRIMARY | _STANDBY:
            requires["role"] = "primary" if tag in _PRIMARY else "standby"
        elif kind == "extension":
            extensions.append(name)
        elif kind == "schema" and (relations := relations_of(sql, name)):
            columns |= {relation: [] for relation in relations}
        elif kind == "schema":
            node.report_loss(
                "tags", f"the tag {tag}", "write a relation in requires: columns: {schema.relation: []}"
            )
        elif kind == "dbname":
            node.report_loss("tags", f"the tag {tag}", "use the file only in the poller of that database")
        elif tag != "cluster":
            node.report_loss("tags", f"the tag {tag}", "use the file only in the pollers that need it")
    least, below = (node.number(key) for key in ("min_version", "max_version"))
    version = version_range(int(least or 0), int(below or 0))
    return {
        **({"columns": columns} if columns else {}),
        **requires,
        **({"server_version": version} if version else {}),
        **({"extensions": extensions} if extensions else {}),
    }


def _columns(node: SourceNode, prefix: str, draft: DraftQuery) -> list[DraftQuery]:
    """Add the metrics to `draft`; return a query for each histogram, which needs the rows for itself."""
    declared = [
        (column.text("name") or name, column)
        for item in node.items("metrics")
        for name, column in item.members()
        if column.is_mapping()
    ]
    for _, column in declared:
        column.report_unknown_keys(*_COLUMN)
    usages = [(name, column, column.text("usage").strip().upper()) for name, column in declared]
    labels = {column.text("rename") or name: name for name, column, usage in usages if usage == "LABEL"}
    defaults = [name for name, column, usage in usages if usage == "COUNTER" and "default" in column]
    if defaults:
        message = f"the default of counters ({', '.join(defaults)}) would look like a reset"
        node.report_loss("metrics", message, "write coalesce() in the SQL if NULL means 0")
    columns = Columns(labels)
    kinds = kinds_of(statement(draft.sql))
    typed = {column.name for column in columns_of(statement(draft.sql)) or () if column.type is not None}
    histograms: list[DraftQuery] = []
    for name, column, usage in usages:
        if usage in _VALUES and kinds.get(name) == "text":
            column.report_loss("usage", f"{name} is a text, not a number", "cast it to a number in the SQL")
        elif usage in _VALUES:
            original = f"{prefix}_{column.text('rename') or name}"
            written = column.child("bucket").value if "bucket" in column else None
            boundaries = tuple(written) if isinstance(written, list) else ()
            if usage == "HISTOGRAM" and not boundaries:
                column.report_loss(
                    "bucket", f"{name} is a histogram without buckets", "write bucket: [1, 10]"
                )
                continue
            expression, zero = _value(name, column, usage, kinds.get(name))
            if expression and name not in typed:
                message = "scale and default need a number; cast the column in the SQL if it has another type"
                node.source.losses.add_change(column.place, message)
            metric = DraftMetric(
                column.place,
                original,
                metric_name(original),
                column.text("description") or node.text("desc"),
                columns.value(name, expression),
                unit=unit_of(original),
                attribute_columns=columns.labels,
                zero_for_null=zero,
                type="counter" if usage == "COUNTER" else "gauge",
            )
            if usage == "HISTOGRAM":
                # Prometheus appends the unit 1 to the name of a gauge, after `_sum`.
                metric = replace(metric, histogram=boundaries, unit=metric.unit.removeprefix("1"))
                histograms.append(replace(draft, name=f"{draft.name}_{name}", metrics=[metric]))
                column.report_change("usage", f"the histogram {name} is a query of its own")
            else:
                draft.metrics.append(metric)
        elif usage not in ("LABEL", "DISCARD"):
            column.report_loss(
                "usage",
                f"the usage of {name} is {usage or 'missing'}",
                "write LABEL, GAUGE, COUNTER or HISTOGRAM",
            )
    draft.computed = columns.computed
    return [replace(query, computed=columns.computed) for query in histograms]


def _value(name: str, column: SourceNode, usage: str, kind: Kind | None) -> tuple[str, bool]:
    """Return the SQL expression of a value, empty if it needs none, and whether NULL counts as 0."""
    scale = None if kind in ("time", "boolean") else column.number("scale")  # the tool scales neither
    inner = number(name, kind) or identifier(name)
    # A counter that is briefly 0 would look like a reset.
    default = None if usage == "COUNTER" else column.number("default")
    scaled = "" if scale is None or scale == 1 else f" * {literal(scale)}"
    if default is not None and (default != 0 or scaled or usage == "HISTOGRAM"):
        return f"coalesce({inner}, {literal(default)}){scaled}", False
    return f"{inner}{scaled}" if scaled or kind in ("time", "boolean") else "", default is not None

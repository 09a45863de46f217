"""Importer for the `sqlquery` receivers of an OpenTelemetry Collector.

Source: opentelemetry-collector-contrib, internal/sqlquery/config.go and receiver/sqlqueryreceiver.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from poller.model.prometheus import metric_name as in_prometheus
from poller.model.query import MetricType
from poller.model.text import quote
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import metric_name, unit_like
from poller.tools.importers.node import Node
from poller.tools.importers.sql_projection import identifier, literal

_CONNECTION = (
    "datasource", "host", "port", "database", "username", "password", "additional_params", "max_open_conn",
    "storage", "telemetry", "initial_delay",
)  # fmt: skip
_METRIC = (
    "metric_name", "value_column", "attribute_columns", "data_type", "value_type", "monotonic",
    "aggregation", "unit", "description", "static_attributes", "start_ts_column", "ts_column",
    "row_condition",
)  # fmt: skip
_WORDS = {
    "data_type": ("gauge", "sum"),
    "value_type": ("int", "double"),
    "aggregation": ("cumulative", "delta"),
}


def read(files: Sequence[Path], losses: Losses) -> list[DraftQuery]:
    """Return the queries of all sqlquery receivers; a file is a Collector's configuration or one receiver."""
    drafts: list[DraftQuery] = []
    for source in open_each(files, lambda file: open_yaml(file, losses)):
        receivers = source.root.entries("receivers")
        found = [node for name, node in receivers if re.fullmatch(r"sqlquery(/.*)?", name)]
        if "queries" in source.root:
            found.append(source.root)
        if not found:
            losses.lost(source.root.place, "holds no receiver sqlquery", "give the file that does")
        for receiver in found:
            drafts += _receiver(receiver)
    return drafts


def _receiver(node: Node) -> list[DraftQuery]:
    node.others("driver", "collection_interval", "timeout", "queries", *_CONNECTION)
    driver = node.text("driver")
    if driver not in ("postgres", "pgx"):
        node.lost("driver", f"{driver or 'no driver'} is not PostgreSQL", "the poller speaks to nothing else")
        return []
    node.connection("datasource", "host")
    interval = node.seconds("collection_interval")
    if interval is None:
        node.changed("collection_interval", "is 10s where it is not written; here it is POLLER_INTERVAL")
    timeout = node.seconds("timeout") or None
    if timeout:
        node.changed("timeout", "is the timeout of each query, not of all together")
    drafts = [draft for query in node.items("queries") for draft in _query(query)]
    for draft in drafts:
        draft.interval, draft.timeout = interval, timeout
    return drafts


def _query(node: Node) -> list[DraftQuery]:
    node.others("sql", "metrics", "logs", "tracking_column", "tracking_start_value", "ignore_null_values")
    sql = node.text("sql")
    if "${" in sql:
        node.lost("sql", "it holds ${...}", "write what stands for it")
        return []
    for key in ("logs", "tracking_column"):
        if key in node:
            node.lost(key, "rows become metrics here, not log records", "leave them with the Collector")
    if not node.items("metrics") and "logs" not in node:
        node.source.losses.lost(node.place, "a query without metrics", "write its metrics, or remove it")
    drafts: dict[str, DraftQuery] = {}
    for metric in node.items("metrics"):
        metric.others(*_METRIC)
        where = _condition(metric)
        name = metric.text("metric_name")
        draft = drafts.setdefault(
            where, DraftQuery(node.place, name, sql, [], comment=node.comment(), where=where)
        )
        if (kind := _kind(metric, name)) is not None:
            draft.metrics.append(_metric(metric, kind))
    if len(drafts) > 1:
        node.changed("metrics", f"rows chosen by row_condition make {len(drafts)} queries of this one")
    return list(drafts.values())


def _condition(node: Node) -> str:
    if "row_condition" not in node:
        return ""
    condition = node.child("row_condition")
    return f"{identifier(condition.text('column'))}::text = {literal(condition.text('value'))}"


def _metric(node: Node, kind: MetricType) -> DraftMetric:
    original = node.text("metric_name")
    written = node.text("unit")
    unit = unit_like(written)
    if unit is None:
        node.lost("unit", f"{quote(written)} is no unit in UCUM", "write one, such as By, s or {row}")
    elif unit != written:
        node.changed("unit", f"{quote(written)} is {quote(unit)} in UCUM")
    node.timestamp("ts_column")
    node.timestamp("start_ts_column")
    column = node.text("value_column")
    return DraftMetric(
        node.place,
        in_prometheus(original, written, kind),
        metric_name(original),
        node.text("description"),
        column,
        unit=unit or "",
        attribute_columns=tuple(node.texts("attribute_columns")),
        attributes=_attributes(node),
        type=kind,
    )


def _kind(node: Node, name: str) -> MetricType | None:
    """Return the type of the metric; report a loss and return None if its keys are invalid."""
    for key, known in _WORDS.items():
        if (word := node.text(key)) not in ("", *known):
            node.lost(key, f"{key} {quote(word)} of {name}", f"write {' or '.join(known)}")
            if key != "value_type":  # the column's own type decides it here
                return None
    if node.text("data_type") != "sum":
        return "gauge"
    if node.text("aggregation") == "delta":
        node.lost("aggregation", f"{name} is a delta, and becomes a gauge", "let the query return the sum")
        return "gauge"
    return "counter" if node.flag("monotonic") else "updowncounter"


def _attributes(node: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, _ in node.entries("static_attributes"):
        value = node.child("static_attributes").text(name)
        if "${" in value:
            node.lost("static_attributes", f"{name} holds ${{...}}", "write what stands for it")
        else:
            found[name] = value
    return found

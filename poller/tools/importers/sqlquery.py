"""Importer for the `sqlquery` receivers of an OpenTelemetry Collector.

Source: opentelemetry-collector-contrib, internal/sqlquery/config.go and receiver/sqlqueryreceiver.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from poller.model.prometheus import metric_name as in_prometheus
from poller.model.query import MetricType
from poller.model.text import quote
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import metric_name, unit_like
from poller.tools.importers.node import SourceNode
from poller.tools.importers.sql_columns import kinds_of
from poller.tools.importers.sql_projection import identifier, literal
from poller.tools.importers.sql_types import Kind
from poller.tools.importers.targets import DraftTarget, DraftTargets, merge_equal

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


def read(files: Sequence[Path], losses: Losses, targets: DraftTargets | None) -> list[DraftQuery]:
    """Return the queries of all sqlquery receivers; add their databases to `targets`, unless it is None.

    A file is a Collector's configuration, its section `receivers`, or the content of one receiver.
    """
    drafts: list[DraftQuery] = []
    for source in open_each(files, lambda file: open_yaml(file, losses)):
        receivers = source.root.entries("receivers") or source.root.members()
        nodes = [
            (name.partition("/")[2], node)
            for name, node in receivers
            if re.fullmatch(r"sqlquery(/.*)?", name)
        ]
        if "queries" in source.root:
            nodes.append(("", source.root))
        if not nodes:
            losses.add_loss(
                source.root.place, "contains no sqlquery receiver", "pass a file that contains one"
            )
        for name, receiver in nodes:
            drafts += _receiver(name, receiver, targets)
    return drafts if targets is None else merge_equal(drafts)


def _receiver(name: str, node: SourceNode, targets: DraftTargets | None) -> list[DraftQuery]:
    node.report_unknown_keys("driver", "collection_interval", "timeout", "queries", *_CONNECTION)
    driver = node.text("driver")
    if driver not in ("postgres", "pgx"):
        node.report_loss(
            "driver", f"{driver or 'no driver'} is not PostgreSQL", "the poller supports PostgreSQL only"
        )
        return []
    selectors: tuple[str, ...] = ()
    if targets is None:
        node.report_connection("datasource", "host")
    elif (target := _add_target(name, node, targets)) is not None:
        selectors = (f"name:{target.name}",)
    interval = node.seconds("collection_interval")
    if interval is None:
        node.report_change("collection_interval", "was 10s by default; the interval is now POLLER_INTERVAL")
    timeout = node.seconds("timeout") or None
    if timeout:
        node.report_change("timeout", "is now the timeout of each query, not of all together")
    drafts = [draft for query in node.items("queries") for draft in _query(query)]
    for draft in drafts:
        draft.interval, draft.timeout, draft.targets = interval, timeout, selectors
    return drafts


def _add_target(name: str, node: SourceNode, targets: DraftTargets) -> DraftTarget | None:
    connections = node.number("max_open_conn")
    key = "datasource"
    if key not in node and "host" in node:
        key = "password" if "password" in node else "host"
        parameters = {
            "dialect": "postgresql",
            "user": node.value.get("username"),
            "options": node.value.get("additional_params"),
            **{key: node.value.get(key) for key in ("password", "host", "port", "database")},
        }
        node = replace(node, value={key: parameters})
    return targets.add(node, key, name, {}, node.place, connections)


def _query(node: SourceNode) -> list[DraftQuery]:
    node.report_unknown_keys(
        "sql", "metrics", "logs", "tracking_column", "tracking_start_value", "ignore_null_values"
    )
    sql = node.text("sql")
    if "${" in sql:
        node.report_loss("sql", "the SQL contains ${...}", "write the value instead")
        return []
    for key in ("logs", "tracking_column"):
        if key in node:
            node.report_loss(key, "the poller exports metrics, not log records", "keep them in the Collector")
    if not node.items("metrics") and "logs" not in node:
        node.source.losses.add_loss(node.place, "the query has no metrics", "add metrics, or remove it")
    drafts: dict[str, DraftQuery] = {}
    for metric in node.items("metrics"):
        metric.report_unknown_keys(*_METRIC)
        where = _condition(metric)
        name = metric.text("metric_name")
        draft = drafts.setdefault(
            where, DraftQuery(node.place, name, sql, [], comment=node.comment(), where=where)
        )
        if (kind := _kind(metric, name)) is not None:
            draft.metrics.append(_metric(metric, kind, kinds_of(sql).get(metric.text("ts_column"))))
    if len(drafts) > 1:
        node.report_change("metrics", f"row_condition turns this query into {len(drafts)} queries")
    return list(drafts.values())


def _condition(node: SourceNode) -> str:
    if "row_condition" not in node:
        return ""
    condition = node.child("row_condition")
    return f"{identifier(condition.text('column'))}::text = {literal(condition.text('value'))}"


def _metric(node: SourceNode, kind: MetricType, kind_of_time: Kind | None) -> DraftMetric:
    original = node.text("metric_name")
    written = node.text("unit")
    unit = unit_like(written)
    if unit is None:
        node.report_loss(
            "unit", f"{quote(written)} is not a UCUM unit", "write a unit such as By, s or {row}"
        )
    elif unit != written:
        node.report_change("unit", f"{quote(written)} is {quote(unit)} in UCUM")
    time_column = node.time_column("ts_column", kind_of_time, gauge=kind == "gauge")
    if "start_ts_column" in node:
        node.report_loss(
            "start_ts_column", "the poller sets start times itself", "export it as a metric of its own"
        )
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
        time_column=time_column,
    )


def _kind(node: SourceNode, name: str) -> MetricType | None:
    """Return the type of the metric; report a loss and return None if its keys are invalid."""
    for key, words in _WORDS.items():
        if (word := node.text(key)) not in ("", *words):
            node.report_loss(key, f"{key} of {name} is {quote(word)}", f"write {' or '.join(words)}")
            if key != "value_type":  # the column's own type decides it here
                return None
    if node.text("data_type") != "sum":
        return "gauge"
    if node.text("aggregation") == "delta":
        node.report_loss(
            "aggregation", f"{name} is a delta and becomes a gauge", "return the sum from the query"
        )
        return "gauge"
    return "counter" if node.flag("monotonic") else "updowncounter"


def _attributes(node: SourceNode) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for name, _ in node.entries("static_attributes"):
        value = node.child("static_attributes").text(name)
        if "${" in value:
            node.report_loss("static_attributes", f"{name} contains ${{...}}", "write the value instead")
        else:
            attributes[name] = value
    return attributes

"""Importer for query-exporter's configuration files.

It resolves YAML tags such as `!include`.

Source: albertodonato/query-exporter 5.2, docs/configuration.rst and query_exporter/schema.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from poller.config.queries.files import MAX_BYTES
from poller.config.yaml_reader import Tagged
from poller.model.files import read_regular
from poller.tools.importers.cron_schedule import read_schedule
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import SUMMARY, Losses
from poller.tools.importers.naming import metric_name, other_databases, unit_of
from poller.tools.importers.node import SourceFile, SourceNode
from poller.tools.importers.parameters import bind_parameters
from poller.tools.importers.session_settings import Value, read_settings
from poller.tools.importers.sql_columns import kinds_of
from poller.tools.importers.sql_columns import number as as_number
from poller.tools.importers.sql_projection import alias, identifier, literal, statement
from poller.tools.importers.targets import DraftTarget, DraftTargets

_TAGS = ("!include", "!file", "!env")
_DATABASE = ("dsn", "connect-sql", "labels", "connection-pool", "autocommit", "keep-connected")
_INSTEAD = {
    "histogram": "it adds up the values of all runs; write a gauge with `histogram:` and its buckets, "
    "which describes the rows of one run",
    "summary": SUMMARY,
}


def read(files: Sequence[Path], losses: Losses, targets: DraftTargets | None) -> list[DraftQuery]:
    """Return the queries of all `files`, which form one configuration like several `--config` options.

    Add the databases to `targets`, unless it is None.
    """
    roots = [source.root for source in open_each(files, lambda file: _open(file, losses))]
    databases: dict[str, SourceNode] = {}
    metrics: dict[str, SourceNode] = {}
    for root in roots:
        root.report_unknown_keys("databases", "metrics", "queries", "builtin-metrics")
        if "metrics" in root:
            root.report_change(
                "metrics",
                "NULL is 0 in a gauge, as in query-exporter (on_null: zero), and no value in a counter",
            )
        databases |= {name: node for name, node in root.entries("databases") if node.is_mapping()}
        metrics |= {name: node for name, node in root.entries("metrics") if node.is_mapping()}
    added: dict[str, DraftTarget | None] | None = None if targets is None else {}
    settings = {name: read_settings(node, "connect-sql") for name, node in databases.items()}
    for name, node in databases.items():
        node.report_unknown_keys(*_DATABASE)
        if targets is None or added is None:
            node.report_connection("dsn")
        else:
            added[name] = _add_target(name, node, targets)
    return [
        draft
        for root in roots
        for name, query in root.entries("queries")
        if query.is_mapping()
        for draft in _query(name, query, databases, metrics, added, settings)
    ]


def _open(file: Path, losses: Losses, within: tuple[str, ...] = ()) -> SourceFile:
    """Open a file; `within` lists the files that include it."""
    chain = (*within, os.path.realpath(file))
    return open_yaml(file, losses, _TAGS, lambda node: _resolve(node, chain))


def _resolve(node: SourceNode, chain: tuple[str, ...]) -> SourceNode:
    """Resolve a tagged text to the data or text of another file; to None if that fails."""
    if not isinstance(node.value, Tagged):
        return node
    losses, name = node.source.losses, str(node.value)
    named = node.source.file.parent / name
    if node.value.tag == "!include" and os.path.realpath(named) not in chain:
        return _open(named, losses, chain).root
    if node.value.tag == "!include":
        losses.add_loss(node.place, f"{name} includes itself", "write the data instead")
    elif node.value.tag == "!file":
        try:
            text = read_regular(named, MAX_BYTES).decode()
        except (OSError, ValueError):
            text = None
        if text is not None:
            return replace(node, value=text.strip())
        losses.add_loss(node.place, f"the file {name} cannot be read", "write the text instead")
    else:
        losses.add_loss(
            node.place, f"the value is in the environment variable {name}", "write the value instead"
        )
    return replace(node, value=None)


def _add_target(name: str, node: SourceNode, targets: DraftTargets) -> DraftTarget | None:
    if "keep-connected" in node:
        node.report_change("keep-connected", "the poller opens and closes its connections itself")
    pool = node.child("connection-pool") if "connection-pool" in node else None
    connections = None
    if pool is not None and pool.is_mapping():
        connections = (pool.number("size") or 1) + (pool.number("max-overflow") or 0)
    own = {label: node.child("labels").text(label) for label, _ in node.entries("labels")}
    return targets.add(node, "dsn", name, {"database": name, **own}, node.at("labels"), connections)


def _query(
    name: str,
    node: SourceNode,
    databases: Mapping[str, SourceNode],
    metrics: Mapping[str, SourceNode],
    targets: Mapping[str, DraftTarget | None] | None,
    settings: Mapping[str, Mapping[str, Value]],
) -> Iterator[DraftQuery]:
    node.report_unknown_keys("databases", "metrics", "sql", "interval", "schedule", "parameters", "timeout")
    connections = [
        databases[database].value.get("dsn") for database in node.texts("databases") if database in databases
    ]
    if schemes := other_databases(connections):
        node.report_loss(
            "databases", f"{', '.join(schemes)} is not PostgreSQL", "the poller supports PostgreSQL only"
        )
        return
    labels = _labels(node, databases) if targets is None else {}
    selectors = _selectors(node, targets or {})
    if targets is not None and not selectors:
        return
    draft = DraftQuery(
        node.place,
        name,
        node.text("sql"),
        [],
        comment=node.comment(),
        timeout=node.number("timeout"),
        targets=selectors,
        settings=_settings(node, settings),
    )
    _set_times(draft, node)
    ages = []
    for key in node.texts("metrics"):
        if key not in metrics:
            node.report_loss("metrics", f"metric {key} does not exist", "define it in `metrics`")
            continue
        metric = metrics[key]
        drafted, computed = _metric(key, metric, labels)
        draft.metrics += drafted
        draft.computed = {**draft.computed, **computed}
        if (age := metric.seconds("expiration")) is not None:
            ages.append(age)
    if ages:
        draft.max_age = min(ages)
    if not draft.metrics and all(key in metrics for key in node.texts("metrics")):
        node.report_loss(
            "metrics", f"no metric of the query {name} is converted", "see the reason of each metric"
        )
    if not bind_parameters(draft, node):
        return
    kinds = kinds_of(statement(draft.sql))
    columns = sorted({metric.value_column for metric in draft.metrics})
    numbers = {name: as_number(name, "boolean") for name in columns if kinds.get(name) == "boolean"}
    draft.computed = {**numbers, **draft.computed}
    yield draft


def _selectors(node: SourceNode, targets: Mapping[str, DraftTarget | None]) -> tuple[str, ...]:
    """Return selectors of the targets that the query runs on; report databases that do not exist."""
    names = node.texts("databases") if targets else []
    for missing in [name for name in names if name not in targets]:
        node.report_loss("databases", f"the database {missing} does not exist", "define it in `databases`")
    return tuple(f"name:{target.name}" for name in names if (target := targets.get(name)) is not None)


def _settings(node: SourceNode, settings: Mapping[str, Mapping[str, Value]]) -> Mapping[str, Value]:
    """Return the settings that all databases of the query have; report different ones as lost."""
    each = [settings[name] for name in node.texts("databases") if name in settings] or [{}]
    if any(own != each[0] for own in each):
        message = "the databases have different settings in connect-sql"
        node.report_loss("databases", message, "write one query for each, with its settings")
        return {}
    return each[0]


def _labels(node: SourceNode, databases: Mapping[str, SourceNode]) -> dict[str, str]:
    """Return the labels that the tool adds: name and labels of the database, if there is only one."""
    names = node.texts("databases")
    if len(names) != 1:
        listed = ", ".join(names) or "no database"
        message = f"the label database, because the query runs on {listed}"
        node.report_loss("databases", message, "add --targets FILE")
        return {}
    of = databases.get(names[0])
    own = {name: of.child("labels").text(name) for name, _ in of.entries("labels")} if of else {}
    return {"database": names[0], **own}


def _set_times(draft: DraftQuery, node: SourceNode) -> None:
    """Set the schedule or the interval of a query."""
    if "schedule" in node:
        # The tool passes the expression to APScheduler, which counts weekdays from Monday.
        draft.schedule, draft.timezone, draft.interval = read_schedule(node, "schedule", from_monday=True)
        return
    if "interval" not in node:
        node.report_change("interval", "was run at every scrape; the interval is now POLLER_INTERVAL")
    draft.interval = node.seconds("interval")


def _metric(
    name: str, node: SourceNode, labels: Mapping[str, str]
) -> tuple[list[DraftMetric], dict[str, str]]:
    """Return the metric (one for each state of an enum) and the computed columns that it needs."""
    node.report_unknown_keys("type", "description", "labels", "buckets", "states", "expiration", "increment")
    kind = node.text("type")
    if kind not in ("gauge", "counter", "enum"):
        node.report_loss(
            "type", f"{name} is a {kind or 'metric without type'}", _INSTEAD.get(kind, "write gauge")
        )
        return [], {}
    if node.flag("increment"):
        node.report_loss(
            "increment", f"{name} adds up the values of its query", "return the sum from the query"
        )
        return [], {}
    attributes = dict(labels)
    metric = DraftMetric(
        node.place,
        # prometheus_client appends `_total` to every counter.
        f"{name.removesuffix('_total')}_total" if kind == "counter" else name,
        metric_name(name),
        node.text("description"),
        name,
        unit=unit_of(name),
        attribute_columns=tuple(node.texts("labels")),
        attributes=attributes,
        zero_for_null=kind == "gauge",
        type="counter" if kind == "counter" else "gauge",
    )
    if kind != "enum":
        return [metric], {}
    states = node.texts("states")
    computed: dict[str, str] = {}
    for state in states:
        is_it = f"({identifier(name)}::text = {literal(state)})::int"
        computed[alias(f"{name}={state}", computed)] = is_it
    return [
        replace(metric, value_column=column, attributes={**attributes, name: state}, unit="")
        for column, state in zip(computed, states, strict=True)
    ], computed

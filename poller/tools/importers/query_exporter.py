"""Importer for query-exporter's configuration files.

It resolves YAML tags such as `!include`, and expands the parameters of queries.

Source: albertodonato/query-exporter 5.2, docs/configuration.rst and query_exporter/schema.py.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from poller.config.queries.files import MAX_BYTES
from poller.config.queries.yaml_reader import Tagged
from poller.model.files import read_regular
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import HISTOGRAM, SUMMARY, Losses
from poller.tools.importers.naming import metric_name, other_databases, unit_of
from poller.tools.importers.node import SourceFile, SourceNode
from poller.tools.importers.session_settings import Value, read_settings
from poller.tools.importers.sql_columns import kinds_of
from poller.tools.importers.sql_columns import number as as_number
from poller.tools.importers.sql_projection import alias, identifier, literal, statement
from poller.tools.importers.targets import DraftTarget, DraftTargets

_TAGS = ("!include", "!file", "!env")
_DATABASE = ("dsn", "connect-sql", "labels", "connection-pool", "autocommit", "keep-connected")
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)")
_ESCAPED_OR_PARAMETER = re.compile(rf"\\:|{_PARAMETER.pattern}")
_INSTEAD = {"histogram": HISTOGRAM, "summary": SUMMARY}
_MINUTES = re.compile(r"\*/([1-9]\d?) \* \* \* \*")
_HOURLY = re.compile(r"(\d+) \* \* \* \*")


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
        interval=_interval(node),
        timeout=node.number("timeout"),
        targets=selectors,
        settings=_settings(node, settings),
    )
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
    for execution in _executions(draft, node):
        kinds = kinds_of(statement(execution.sql))
        booleans = {
            metric.value_column for metric in execution.metrics if kinds.get(metric.value_column) == "boolean"
        }
        numbers = {column: as_number(column, "boolean") for column in sorted(booleans)}
        yield replace(execution, computed={**numbers, **execution.computed})


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


def _interval(node: SourceNode) -> float | None:
    if "schedule" in node:
        written = " ".join(node.text("schedule").split())
        if (match := _MINUTES.fullmatch(written)) and 60 % int(match[1]) == 0:
            return 60.0 * int(match[1])
        if _HOURLY.fullmatch(written):
            return 3600.0
        message = f"a query has an interval, not times of day ({written})"
        node.report_loss("schedule", message, "write an interval of at most 24h")
        return None
    if "interval" not in node:
        node.report_change("interval", "was run at every scrape; the interval is now POLLER_INTERVAL")
    return node.seconds("interval")


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


def _executions(draft: DraftQuery, node: SourceNode) -> Iterator[DraftQuery]:
    """Yield the query once for each set of parameters, with the values in the SQL."""
    if "parameters" not in node:
        yield replace(draft, sql=_fill_parameters(draft.sql, {}))
        return
    sets = _parameter_sets(node)
    for number, values in enumerate(sets, 1):
        wrong = [
            name for name in _PARAMETER.findall(draft.sql) if isinstance(values.get(name, []), list | dict)
        ]
        if wrong:
            message = f"set {number} has no single value for {', '.join(wrong)}"
            node.report_loss("parameters", message, "write one value for each parameter in the SQL")
            continue
        name = draft.name if len(sets) == 1 else f"{draft.name}_{number}"
        own = [replace(metric) for metric in draft.metrics]
        yield replace(draft, name=name, sql=_fill_parameters(draft.sql, values), metrics=own)


def _parameter_sets(node: SourceNode) -> list[dict[str, Any]]:
    value = node.child("parameters").value
    if not isinstance(value, dict):
        return [item.value for item in node.items("parameters")]
    axes = [
        [
            {f"{axis}__{key}": item for key, item in values.items()}
            for values in sets
            if isinstance(values, dict)
        ]
        for axis, sets in value.items()
        if isinstance(sets, list)
    ]
    return [{key: item for part in parts for key, item in part.items()} for parts in itertools.product(*axes)]


def _fill_parameters(sql: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return ":"
        return literal(values[match[1]]) if match[1] in values else match[0]

    return _ESCAPED_OR_PARAMETER.sub(value, sql)

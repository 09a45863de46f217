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
from poller.tools.importers.naming import metric_name, others, unit_of
from poller.tools.importers.node import Node, Source
from poller.tools.importers.sql_columns import kinds_of
from poller.tools.importers.sql_columns import number as as_number
from poller.tools.importers.sql_projection import alias, identifier, literal, statement

_TAGS = ("!include", "!file", "!env")
_DATABASE = ("dsn", "connect-sql", "labels", "connection-pool", "autocommit", "keep-connected")
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)")
_INSTEAD = {"histogram": HISTOGRAM, "summary": SUMMARY}
_EVERY_MINUTES = re.compile(r"\*/([1-9]\d?) \* \* \* \*")
_HOURLY = re.compile(r"(\d+) \* \* \* \*")


def read(files: Sequence[Path], losses: Losses) -> list[DraftQuery]:
    """Return the queries of all `files`, which form one configuration like several `--config` options."""
    roots = [source.root for source in open_each(files, lambda file: _opened(file, losses))]
    databases: dict[str, Node] = {}
    metrics: dict[str, Node] = {}
    for root in roots:
        root.others("databases", "metrics", "queries", "builtin-metrics")
        if "metrics" in root:
            root.changed(
                "metrics", "NULL is 0 in a gauge, as there (on_null: zero), and no value in a counter"
            )
        databases |= {name: node for name, node in root.entries("databases") if node.is_mapping()}
        metrics |= {name: node for name, node in root.entries("metrics") if node.is_mapping()}
    for node in databases.values():
        node.others(*_DATABASE)
        node.connection("dsn")
        node.session("connect-sql")
    return [
        draft
        for root in roots
        for name, query in root.entries("queries")
        if query.is_mapping()
        for draft in _query(name, query, databases, metrics)
    ]


def _opened(file: Path, losses: Losses, within: tuple[str, ...] = ()) -> Source:
    """Open a file; `within` lists the files that include it."""
    chain = (*within, os.path.realpath(file))
    return open_yaml(file, losses, _TAGS, lambda node: _resolved(node, chain))


def _resolved(node: Node, chain: tuple[str, ...]) -> Node:
    """Resolve a tagged text to the data or text of another file; to None if that fails."""
    if not isinstance(node.value, Tagged):
        return node
    losses, told = node.source.losses, str(node.value)
    named = node.source.file.parent / told
    if node.value.tag == "!include" and os.path.realpath(named) not in chain:
        return _opened(named, losses, chain).root
    if node.value.tag == "!include":
        losses.lost(node.place, f"{told} includes itself", "write what is meant")
    elif node.value.tag == "!file":
        try:
            text = read_regular(named, MAX_BYTES).decode()
        except (OSError, ValueError):
            text = None
        if text is not None:
            return replace(node, value=text.strip())
        losses.lost(node.place, f"the file {told} cannot be read", "write the text itself")
    else:
        losses.lost(node.place, f"it is in the variable {told}", "write the value itself")
    return replace(node, value=None)


def _query(
    name: str, node: Node, databases: Mapping[str, Node], metrics: Mapping[str, Node]
) -> Iterator[DraftQuery]:
    node.others("databases", "metrics", "sql", "interval", "schedule", "parameters", "timeout")
    asked = [databases[one].value.get("dsn") for one in node.texts("databases") if one in databases]
    if told := others(asked):
        node.lost("databases", f"{', '.join(told)} is not PostgreSQL", "the poller speaks to nothing else")
        return
    labels = _labels(node, databases)
    draft = DraftQuery(
        node.place,
        name,
        node.text("sql"),
        [],
        comment=node.comment(),
        interval=_interval(node),
        timeout=node.number("timeout"),
    )
    ages = []
    for wanted in node.texts("metrics"):
        if wanted not in metrics:
            node.lost("metrics", f"there is no metric {wanted}", "define it in `metrics`")
            continue
        metric = metrics[wanted]
        made, computed = _metric(wanted, metric, labels)
        draft.metrics += made
        draft.computed = {**draft.computed, **computed}
        if (age := metric.seconds("expiration")) is not None:
            ages.append(age)
    if ages:
        draft.max_age = min(ages)
    for execution in _executions(draft, node):
        kinds = kinds_of(statement(execution.sql))
        booleans = {one.value_column for one in execution.metrics if kinds.get(one.value_column) == "boolean"}
        numbers = {column: as_number(column, "boolean") for column in sorted(booleans)}
        yield replace(execution, computed={**numbers, **execution.computed})


def _labels(node: Node, databases: Mapping[str, Node]) -> dict[str, str]:
    """Return the labels that the tool adds: name and labels of the database, if there is only one."""
    names = node.texts("databases")
    if len(names) != 1:
        told = ", ".join(names) or "none"
        what = f"the label database: it is run on {told}"
        node.lost("databases", what, "run one poller each, told apart by POLLER_INSTANCE")
        return {}
    of = databases.get(names[0])
    own = {name: of.child("labels").text(name) for name, _ in of.entries("labels")} if of else {}
    return {"database": names[0], **own}


def _interval(node: Node) -> float | None:
    if "schedule" in node:
        written = " ".join(node.text("schedule").split())
        if (match := _EVERY_MINUTES.fullmatch(written)) and 60 % int(match[1]) == 0:
            return 60.0 * int(match[1])
        if _HOURLY.fullmatch(written):
            return 3600.0
        what = f"a query has no times of day ({written})"
        node.lost("schedule", what, "write an interval of at most 24h")
        return None
    if "interval" not in node:
        node.changed("interval", "was run at every scrape; here it is every POLLER_INTERVAL")
    return node.seconds("interval")


def _metric(name: str, node: Node, labels: Mapping[str, str]) -> tuple[list[DraftMetric], dict[str, str]]:
    """Return the metric (one for each state of an enum) and the computed columns that it needs."""
    node.others("type", "description", "labels", "buckets", "states", "expiration", "increment")
    kind = node.text("type")
    if kind not in ("gauge", "counter", "enum"):
        node.lost("type", f"{name} is a {kind or 'metric without type'}", _INSTEAD.get(kind, "write gauge"))
        return [], {}
    if node.flag("increment"):
        node.lost("increment", f"{name} adds up what its query returns", "let the query return the sum")
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


def _executions(draft: DraftQuery, node: Node) -> Iterator[DraftQuery]:
    """Yield the query once for each set of parameters, with the values in the SQL."""
    if "parameters" not in node:
        yield replace(draft, sql=_filled(draft.sql, {}))
        return
    sets = _parameter_sets(node)
    for number, values in enumerate(sets, 1):
        wrong = [
            name for name in _PARAMETER.findall(draft.sql) if isinstance(values.get(name, []), list | dict)
        ]
        if wrong:
            what = f"set {number} has no single value of {', '.join(wrong)}"
            node.lost("parameters", what, "write one for every parameter of the SQL")
            continue
        name = draft.name if len(sets) == 1 else f"{draft.name}_{number}"
        own = [replace(metric) for metric in draft.metrics]
        yield replace(draft, name=name, sql=_filled(draft.sql, values), metrics=own)


def _parameter_sets(node: Node) -> list[dict[str, Any]]:
    value = node.child("parameters").value
    if not isinstance(value, dict):
        return [one.value for one in node.items("parameters")]
    axes = [
        [{f"{axis}__{key}": item for key, item in one.items()} for one in sets if isinstance(one, dict)]
        for axis, sets in value.items()
        if isinstance(sets, list)
    ]
    return [{key: item for part in parts for key, item in part.items()} for parts in itertools.product(*axes)]


def _filled(sql: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        return literal(values[match[1]]) if match[1] in values else match[0]

    return _PARAMETER.sub(value, sql).replace("\\:", ":")

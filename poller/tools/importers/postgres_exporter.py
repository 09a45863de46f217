"""Importer for postgres_exporter's custom queries (`--extend.query-path`).

Source: prometheus-community/postgres_exporter, exporter/{queries,postgres_exporter,namespace,util}.go.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import HISTOGRAM, Losses
from poller.tools.importers.naming import from_semver, metric_name, unit_of
from poller.tools.importers.node import Node
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
                drafts.append(_namespace(name, node))
            else:
                losses.lost(node.place, f"{name} has no query", "give the file of --extend.query-path")
        if len(drafts) > before:
            source.root.unmade("", "server")
    return drafts


def _namespace(name: str, node: Node) -> DraftQuery:
    node.others("query", "metrics", "master", "cache_seconds", "runonserver")
    version = from_semver(node.text("runonserver"))
    if version is None:
        node.lost("runonserver", node.text("runonserver"), "write requires: server_version: '>=14,<17'")
    if node.flag("master"):
        what = "was asked of the configured database, of none that was discovered; here of any with this file"
        node.changed("master", what)
    interval = node.number("cache_seconds") or None
    if interval is None:
        node.changed("cache_seconds", "was collected at every scrape; here it is every POLLER_INTERVAL")
    draft = DraftQuery(
        node.place,
        name,
        node.text("query"),
        [],
        comment=node.comment(),
        interval=interval,
        requires={"server_version": version} if version else {},
    )
    _columns(node, draft)
    return draft


def _columns(node: Node, draft: DraftQuery) -> None:
    declared = [
        (name, column)
        for item in node.items("metrics")
        for name, column in item.members()
        if column.is_mapping()
    ]
    labels = {name: name for name, column in declared if column.text("usage") == "LABEL"}
    columns = Columns(labels)
    _undeclared(node, draft, {name for name, _ in declared})
    kinds = kinds_of(statement(draft.sql))
    for name, column in declared:
        column.others("usage", "description", "metric_mapping")
        usage = column.text("usage")
        expression = ""
        if usage == "MAPPEDMETRIC":
            expression = _mapped(name, column)
        if usage in ("GAUGE", "COUNTER") and kinds.get(name) == "text":
            column.lost("usage", f"{name} holds a text, not a number", "cast it to a number in the SQL")
            continue
        if usage in ("GAUGE", "COUNTER"):
            expression = number(name, kinds.get(name))
            if name not in kinds and _TIME.search(name):
                what = f"of a timestamp it was the Unix time; if it is one, write extract(epoch FROM {name})"
                node.source.losses.changed(column.place, what)
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
            column.lost("usage", f"{name} is a text with a duration", f"write extract(epoch FROM {name})")
        elif usage == "HISTOGRAM":
            column.lost("usage", f"{name} is a histogram", HISTOGRAM)
        elif usage not in ("LABEL", "DISCARD", "MAPPEDMETRIC"):
            column.lost("usage", f"{usage or 'no usage'} of {name}", "write LABEL, GAUGE or COUNTER")
    draft.computed = columns.computed


def _undeclared(node: Node, draft: DraftQuery, declared: Container[str]) -> None:
    """Report columns missing from `metrics`; the tool exports those with numbers as untyped metrics."""
    columns = columns_of(statement(draft.sql))
    if columns is None and "*" in draft.sql:
        what = f"columns that {draft.name} may have by its star and not in `metrics`, untyped metrics there"
        node.lost("query", what, "name every column in the SQL, and in `metrics`")
    for name in dict.fromkeys(
        column.name for column in columns or () if column.name not in declared and column.kind != "text"
    ):
        what = f"{draft.name}_{name}, an untyped metric there, as `metrics` does not name the column"
        node.lost("query", what, "add it to `metrics` with the usage GAUGE, LABEL or DISCARD")


def _mapped(name: str, column: Node) -> str:
    """Return a CASE expression that maps each text to its number; empty if there is none."""
    mapping = column.entries("metric_mapping")
    if not mapping:
        column.lost("usage", f"{name} is mapped to nothing", "write CASE ... WHEN ... THEN ... END in SQL")
        return ""
    numbers = [(text, column.child("metric_mapping").number(text)) for text, _ in mapping]
    cases = [f"WHEN {literal(text)} THEN {literal(number)}" for text, number in numbers if number is not None]
    return f"CASE {identifier(name)}::text {' '.join(cases)} END" if cases else ""

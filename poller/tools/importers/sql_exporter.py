"""Importer for the collectors of burningalchemist's sql_exporter, and for justwatchcom's jobs.

Debian packages the sql_exporter of justwatchcom.

Source: burningalchemist/sql_exporter, config/*.go.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from poller.tools.importers import justwatch
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import metric_name, other_databases, unit_of
from poller.tools.importers.node import SourceNode
from poller.tools.importers.sql_columns import kinds_of
from poller.tools.importers.sql_projection import literal
from poller.tools.importers.targets import DraftTarget, DraftTargets

_CONNECTION = (
    "max_connections", "max_idle_connections", "max_connection_lifetime", "ping_interval", "warmup_delay",
    "enable_query_metrics", "scrape_timeout_offset", "scrape_error_drop_interval",
)  # fmt: skip
_METRIC = (
    "metric_name", "type", "help", "key_labels", "static_labels", "value_label", "values", "query",
    "query_ref", "no_prepared_statement", "static_value", "timestamp_value",
)  # fmt: skip

MAX_MATCHES = 1000
"""Maximum number of files or folders that a part of a pattern in `collector_files` may match."""


_Use = tuple[Sequence[str], DraftTarget]
"""A target, and the patterns of the collectors that it uses."""


class TooManyMatchesError(Exception):
    """A pattern matches more than MAX_MATCHES files or folders."""


def read(files: Sequence[Path], losses: Losses, targets: DraftTargets | None) -> list[DraftQuery]:
    """Return the queries of all collectors in `files` and in the files of their `collector_files`.

    Add the targets of the files to `targets`, unless it is None.
    """
    drafts: list[DraftQuery] = []
    collectors: list[tuple[SourceNode, _MainSettings]] = []
    mains: list[_MainSettings] = []
    opened = {os.path.realpath(file) for file in files}
    for source in open_each(files, lambda file: open_yaml(file, losses)):
        root = source.root
        if not root.is_mapping():
            continue
        if justwatch.is_justwatch(root):
            drafts += justwatch.read(root, targets)
            continue
        if "collector_name" in root:
            collectors.append((root, _MainSettings()))
            continue
        if schemes := other_databases(_connections(root)):
            message = f"{', '.join(schemes)} is not PostgreSQL"
            root.report_loss(
                "target" if "target" in root else "jobs", message, "the poller supports PostgreSQL only"
            )
            continue
        main = _main_settings(root, targets)
        mains.append(main)
        collectors += [(collector, main) for collector in root.items("collectors")]
        named = _named(root)
        main.files = {os.path.realpath(file) for file in named}
        new = [file for file in named if os.path.realpath(file) not in opened]
        opened |= main.files
        collectors += [(inner.root, main) for inner in open_each(new, lambda file: open_yaml(file, losses))]
    for collector, main in collectors:
        drafts += _collector(collector, main, targets, _uses(collector, main, mains))
    return drafts


class _MainSettings:
    """Settings of a main file for its collectors."""

    interval: float | None = None
    timeout: float | None = None
    used: Sequence[str] = ("*",)
    labels: dict[str, str] = {}  # noqa: RUF012 - replaced, never mutated
    files: Collection[str] = ()
    """Real paths of its collector files."""
    uses: Sequence[_Use] = ()


def _uses(collector: SourceNode, main: _MainSettings, mains: Sequence[_MainSettings]) -> list[_Use]:
    """Return the uses of collectors by the main files that contain or name this collector.

    If no main file names it, because its path is different here, all of them may use it.
    """
    if collector.path:
        return list(main.uses)
    file = os.path.realpath(collector.source.file)
    owners = [other for other in mains if file in other.files] or mains
    return [use for owner in owners for use in owner.uses]


def _main_settings(root: SourceNode, draft_targets: DraftTargets | None) -> _MainSettings:
    main = _MainSettings()
    connections: float | None = None
    root.report_unknown_keys("global", "collector_files", "target", "jobs", "collectors")
    if draft_targets is None:
        root.report_connection("target", "jobs")
    if "jobs" in root:
        root.report_omitted_labels("jobs", "job", "target", are_targets=draft_targets is not None)
    if "global" in root and (settings := root.child("global")).is_mapping():
        main.interval = settings.seconds("min_interval") or None
        main.timeout = settings.seconds("scrape_timeout") or None
        connections = settings.number("max_connections")
        settings.report_unknown_keys("min_interval", "scrape_timeout", *_CONNECTION)
        if main.timeout:
            settings.report_change("scrape_timeout", "is now the timeout of each query, not of all together")
    targets = [root.child("target")] if "target" in root else []
    jobs = root.items("jobs")
    for target in targets:
        target.report_unknown_keys("name", "data_source_name", "collectors", "enable_ping", "aws_secret_name")
    for job in jobs:
        job.report_unknown_keys("job_name", "collectors", "static_configs", "enable_ping")
    used = [
        name
        for node in (*targets, *jobs)
        if isinstance(node.value, dict)
        for name in node.texts("collectors")
    ]
    main.used = used or ("*",)
    if draft_targets is not None:
        main.uses = _add_targets(targets, jobs, draft_targets, connections)
        return main
    statics = [static for job in jobs for static in job.items("static_configs")]
    several = len(statics) > 1 or any(len(static.entries("targets")) > 1 for static in statics)
    for static in statics:
        labels = {name: static.child("labels").text(name) for name, _ in static.entries("labels")}
        if labels and several:
            static.report_loss("labels", "the labels differ by target", "add --targets FILE")
        elif labels:
            main.labels = labels
    return main


def _add_targets(
    singles: Sequence[SourceNode],
    jobs: Sequence[SourceNode],
    draft_targets: DraftTargets,
    connections: float | None,
) -> list[_Use]:
    """Add the targets of a main file; return each with the patterns of its collectors."""
    uses: list[_Use] = []

    def add(patterns: Sequence[str], target: DraftTarget | None) -> None:
        if target is not None:
            uses.append((patterns, target))

    for single in singles:
        if isinstance(single.value, dict):
            name = single.text("name")
            target = draft_targets.add(single, "data_source_name", name, {}, single.place, connections)
            add(single.texts("collectors"), target)
    for job in jobs:
        for static in job.items("static_configs"):
            labels = {name: static.child("labels").text(name) for name, _ in static.entries("labels")}
            for name, dsn in static.entries("targets"):
                target = draft_targets.add(
                    static.child("targets"), dsn.path[-1], name, labels, static.at("labels"), connections
                )
                add(job.texts("collectors"), target)
    return uses


def _connections(root: SourceNode) -> list[Any]:
    targets = [node.value for job in root.items("jobs") for node in job.items("static_configs")]
    dsns = [
        dsn
        for value in targets
        if isinstance(value.get("targets"), dict)
        for dsn in value["targets"].values()
    ]
    target = root.value.get("target")
    return [*dsns, target.get("data_source_name")] if isinstance(target, dict) else dsns


def _named(root: SourceNode) -> list[Path]:
    files: list[Path] = []
    for pattern in root.texts("collector_files"):
        matches: list[Path] = []
        message = f"{pattern} matches no file"
        try:
            matches = find_files(root.source.file.parent, pattern)
        except TooManyMatchesError:
            message = f"{pattern} matches more than {MAX_MATCHES} files or folders"
        except (OSError, ValueError):
            pass
        if not matches:
            root.report_loss("collector_files", message, "pass the files as arguments")
        files += matches
    return files


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files that `pattern`, relative to `folder`, matches in Go, where `**` is `*`.

    Raises TooManyMatchesError if more than MAX_MATCHES files or folders match a part of the pattern,
    because `/*/*/*/*` would read the whole file system.
    """
    path = Path(pattern)
    matches = [folder / path.anchor]
    for part in path.relative_to(path.anchor).parts:
        if not set(part) & set("*?["):
            matches = [parent / part for parent in matches]
            continue
        wildcard = re.sub(r"\*+", "*", part).replace("[^", "[!")
        matching = (match for parent in matches for match in parent.glob(wildcard))
        matches = sorted(itertools.islice(matching, MAX_MATCHES + 1))
        if len(matches) > MAX_MATCHES:
            raise TooManyMatchesError
    return [match for match in matches if match.is_file()]


def _collector(
    node: SourceNode, main: _MainSettings, targets: DraftTargets | None, uses: Sequence[_Use]
) -> list[DraftQuery]:
    node.report_unknown_keys("collector_name", "min_interval", "metrics", "queries")
    name = node.text("collector_name")
    selectors: tuple[str, ...] = ()
    if targets is not None and targets.targets:
        users = [
            target for patterns, target in uses if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        if not users:
            node.report_change("collector_name", f"no target uses the collector {name}; it is omitted")
            return []
        selectors = (targets.tag(node.place, name),)
        for user in users:
            user.tags += selectors
    elif not any(fnmatchcase(name, pattern) for pattern in main.used):
        node.report_change(
            "collector_name", f"no target or job uses the collector {name}; it is imported anyway"
        )
    interval = node.seconds("min_interval")
    interval = main.interval if interval is None else interval or None
    if interval is None:
        node.report_change(
            "min_interval", "was collected at every scrape; the interval is now POLLER_INTERVAL"
        )
    queries = {query.text("query_name"): query for query in node.items("queries")}
    drafts: dict[str, DraftQuery] = {}
    for metric in node.items("metrics"):
        metric.report_unknown_keys(*_METRIC)
        reference = metric.text("query_ref")
        if reference and reference not in queries:
            metric.report_loss(
                "query_ref", f"query {reference} does not exist", "write the name of a query in the collector"
            )
            continue
        query = queries[reference] if reference else metric
        if reference:
            query.report_unknown_keys("query_name", "query", "no_prepared_statement")
        key = reference or f"\0{metric.path}"
        draft = drafts.setdefault(
            key,
            DraftQuery(
                query.place,
                reference or metric.text("metric_name"),
                query.text("query"),
                [],
                comment=query.comment(),
                interval=interval,
                timeout=main.timeout,
                targets=selectors,
            ),
        )
        _add(metric, draft, main.labels)
    for name, query in queries.items():
        if name not in drafts:
            query.report_change("query_name", f"no metric refers to {name}; it is omitted")
    return list(drafts.values())


def _add(node: SourceNode, draft: DraftQuery, labels: dict[str, str]) -> None:
    """Add a metric for each value column; metrics of the same name differ by the value label."""
    original = node.text("metric_name")
    kind = node.text("type").lower()
    if kind not in ("gauge", "counter"):
        node.report_loss("type", f"{original} is of type {kind or 'none'}", "write gauge or counter")
        return
    values = node.texts("values")
    if "static_value" in node:
        value = literal(node.number("static_value") or 0)
        values = [f"static_value={value}"]
        draft.computed = {**draft.computed, values[0]: value}
    if not values:
        node.report_loss("values", f"{original} has no values", "write the names of its value columns")
    column_kind = kinds_of(draft.sql).get(node.text("timestamp_value"))
    time_column = node.time_column("timestamp_value", column_kind, gauge=kind == "gauge")
    fixed = {name: node.child("static_labels").text(name) for name, _ in node.entries("static_labels")}
    value_label = node.text("value_label")
    for column in values:
        fan_out = {value_label: column} if value_label and "static_value" not in node else {}
        draft.metrics.append(
            DraftMetric(
                node.place,
                original,
                metric_name(original),
                node.text("help"),
                column,
                unit=unit_of(original),
                attribute_columns=tuple(node.texts("key_labels")),
                attributes={**labels, **fixed, **fan_out},
                type="counter" if kind == "counter" else "gauge",
                time_column=time_column,
            )
        )

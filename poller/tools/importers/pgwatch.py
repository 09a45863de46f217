"""Importer for pgwatch's metrics and presets, and the intervals in its sources.

Source: cybertec-postgresql/pgwatch 6, internal/metrics/types.go and internal/sinks/prometheus.go.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.model.duration import format_duration
from poller.model.text import quote
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import metric_name, unit_of, version_range
from poller.tools.importers.node import SourceNode
from poller.tools.importers.session_settings import read_settings
from poller.tools.importers.sql_columns import SqlColumn, columns_of, duplicate_names
from poller.tools.importers.sql_projection import Columns, identifier, statement
from poller.tools.importers.targets import DraftTargets, patterns

_METRIC = (
    "sqls", "init_sql", "node_status", "gauges", "is_instance_level", "storage_name", "description",
    "statement_timeout_seconds", "metric_attrs", "is_private",
)  # fmt: skip
_SOURCE = (
    "name", "group", "conn_str", "custom_metrics", "custom_metrics_standby", "kind", "include_pattern",
    "exclude_pattern", "preset_metrics", "preset_metrics_standby", "is_enabled", "custom_tags",
    "only_if_master",
)  # fmt: skip
_OTHER_KINDS = ("pgbouncer", "pgpool", "prometheus")
_TIME = "epoch_ns"
_TAG = "tag_"


def read(files: Sequence[Path], losses: Losses, targets: DraftTargets | None) -> list[DraftQuery]:
    """Return the queries of all metrics in `files`, with the intervals of their presets and sources.

    Add the sources to `targets`, unless it is None.
    """
    roots = [source.root for source in open_each(files, lambda file: open_yaml(file, losses))]
    sources = _sources(roots, are_targets=targets is not None)
    intervals = _intervals(roots, sources)
    selectors = {} if targets is None else _add_targets(roots, sources, targets)
    are_targets = targets is not None and bool(targets.targets)
    are_servers = targets is not None and any(target.databases is not None for target in targets.targets)
    drafts: list[DraftQuery] = []
    defined: set[str] = set()
    for root in roots:
        if isinstance(root.value, list):
            continue
        root.report_unknown_keys("metrics", "presets")
        root.report_omitted_labels("metrics", "dbname", are_targets=targets is not None)
        for name, node in root.entries("metrics"):
            if not node.is_mapping():
                continue
            defined.add(name)
            if are_targets and name not in selectors:
                losses.add_change(node.place, "no source uses the metric; it is omitted")
                continue
            queries = _PgwatchMetric(name, node, _interval(name, node, intervals)).queries()
            for draft in queries:
                draft.targets = tuple(selectors.get(name, ()))
                draft.once_per_server = are_servers and node.flag("is_instance_level")
            drafts += queries
    for name, nodes in intervals.items():
        if name not in defined:
            place = nodes[min(nodes)].place
            losses.add_loss(place, f"{name} is not in these files", "pass the file that defines it as well")
    return drafts


def _sources(roots: Sequence[SourceNode], *, are_targets: bool) -> list[SourceNode]:
    """Return the sources that pgwatch queries."""
    presets = {name for root in roots for name, _ in root.entries("presets")}
    return [
        node
        for root in roots
        if isinstance(root.value, list)
        for _, node in root.members()
        if node.is_mapping() and _is_used(node, presets, are_targets=are_targets)
    ]


def _add_targets(
    roots: Sequence[SourceNode], sources: Sequence[SourceNode], targets: DraftTargets
) -> dict[str, list[str]]:
    """Add the sources to `targets`; return the tags of the targets that use each metric.

    A source has the tag of its preset, or that of its own list of metrics, which overrides the preset.
    """
    presets = {name: node for root in roots for name, node in root.entries("presets")}
    selectors: dict[str, list[str]] = {}
    for source in sources:
        if source.text("kind").startswith("patroni"):
            name, advice = (
                source.text("name"),
                "write a url with several hosts: postgresql://user@host1,host2/database",
            )
            source.report_loss("kind", f"Patroni lists the databases of the source {name}", advice)
            continue
        tags = source.child("custom_tags") if "custom_tags" in source else source
        labels = {label: tags.text(label) for label, _ in source.entries("custom_tags")}
        target = targets.add(source, "conn_str", source.text("name"), labels, source.at("custom_tags"))
        if target is None:
            continue
        if source.text("kind") == "postgres-continuous-discovery":
            target.databases = _databases(source)
        metrics = [name for name, _ in source.entries("custom_metrics")]
        preset = source.text("preset_metrics")
        if metrics:
            tag = targets.tag(tuple(sorted(metrics)), source.text("name"))
        elif preset in presets:
            tag = targets.tag(preset, preset)
            metrics = [name for name, _ in presets[preset].entries("metrics")]
        else:
            continue
        target.tags.append(tag)
        for metric in metrics:
            if tag not in selectors.setdefault(metric, []):
                selectors[metric].append(tag)
    return selectors


def _databases(source: SourceNode) -> dict[str, list[str]] | None:
    """Return the patterns of a source's databases; None if they cannot be expressed, which is reported."""
    databases: dict[str, list[str]] = {}
    for key in ("include", "exclude"):
        regex = source.text(f"{key}_pattern")
        if not regex.strip():
            continue
        globs = patterns(regex)
        if globs is None:
            message = (
                f"the regular expression {quote(regex)} has no equal patterns of *, ? and [...]; only the "
                f"database of conn_str is a target of {source.text('name')}"
            )
            source.report_loss(f"{key}_pattern", message, f"write databases: {{{key}: [...]}} in its target")
            return None
        databases[key] = globs
    return databases


def _intervals(
    roots: Sequence[SourceNode], sources: Sequence[SourceNode]
) -> dict[str, dict[float, SourceNode]]:
    """Return, by metric, each interval from a preset or a source, and its location."""
    intervals: dict[str, dict[float, SourceNode]] = {}
    for root in roots:
        lists = [preset for _, preset in root.entries("presets")]
        key = "metrics"
        if isinstance(root.value, list):
            lists = [node for node in sources if node.source is root.source]
            key = "custom_metrics"
        for node in lists:
            if key == "metrics":
                node.report_unknown_keys("description", "metrics")
            for name, _ in node.entries(key):
                seconds = node.child(key).number(name)
                if seconds:
                    intervals.setdefault(name, {})[seconds] = node
    return intervals


def _is_used(source: SourceNode, presets: Container[str], *, are_targets: bool) -> bool:
    """Return whether pgwatch queries a source; report its keys that have no meaning here."""
    source.report_unknown_keys(*_SOURCE)
    if not are_targets:
        source.report_connection("conn_str")
    name = source.text("name")
    if "is_enabled" in source and not source.flag("is_enabled"):
        source.report_change("is_enabled", f"the source {name} is ignored, as in pgwatch")
        return False
    if (kind := source.text("kind")) in _OTHER_KINDS:
        source.report_loss("kind", f"the source {name} is {kind}", "the poller queries PostgreSQL only")
        return False
    if not are_targets and source.entries("custom_tags"):
        advice = "add --targets FILE"
        source.report_loss("custom_tags", f"the source {name} has tags", advice)
    if source.flag("only_if_master"):
        advice = "write requires: role: primary in each query, or use the files only in the primary's poller"
        source.report_loss("only_if_master", f"the source {name} is queried on a primary only", advice)
    for key in ("preset_metrics", "preset_metrics_standby"):
        preset = source.text(key)
        if preset and preset not in presets:
            source.report_loss(
                key, f"the preset {preset} is not in these files", "pass the file that defines it as well"
            )
        elif preset and not are_targets:
            message = f"every metric of these files is imported, not only those of the preset {preset}"
            source.report_change(key, message)
    for key in ("custom_metrics_standby", "preset_metrics_standby"):
        if key in source and source.value[key]:
            advice = "write requires: role: primary (or standby) in the queries that differ"
            source.report_loss(key, f"the source {name} has other metrics on a standby", advice)
    return True


def _interval(
    name: str, node: SourceNode, intervals: Mapping[str, Mapping[float, SourceNode]]
) -> float | None:
    seconds = sorted(intervals.get(name, {}))
    if not seconds:
        message = f"no preset in these files has an interval for {name}; it is now POLLER_INTERVAL"
        node.source.losses.add_change(node.place, message)
        return None
    if len(seconds) > 1:
        listed = ", ".join(map(format_duration, seconds))
        node.source.losses.add_change(
            node.place, f"the presets have several intervals for {name} ({listed}); it is now the longest"
        )
    return seconds[-1]


@dataclass(frozen=True, slots=True)
class _PgwatchMetric:
    """One pgwatch metric, with a statement for each range of server versions."""

    name: str
    node: SourceNode
    interval: float | None

    def queries(self) -> list[DraftQuery]:
        node = self.node
        node.report_unknown_keys(*_METRIC)
        settings = read_settings(node, "init_sql")
        if "metric_attrs" in node:
            message = "a statement cannot depend on the version of an extension"
            node.report_loss("metric_attrs", message, "write requires: extensions:")
        status = node.text("node_status")
        if status not in ("", "primary", "standby"):
            node.report_loss(
                "node_status", f"the status {status}", "write requires: role: primary (or standby)"
            )
        if "gauges" not in node:
            message = (
                f"pgwatch exports all columns of {self.name} as counters without it; they are now gauges"
            )
            node.report_change("gauges", message)
        for key, _ in node.entries("sqls"):
            if not _is_number(key):
                node.report_loss(
                    "sqls",
                    f"the version {key} of {self.name} is not a number",
                    "write the server's major version",
                )
        versions = sorted((int(float(key)), key) for key, _ in node.entries("sqls") if _is_number(key))
        drafts = []
        for number, (version, key) in enumerate(versions):
            sql = statement(node.child("sqls").text(key))
            if not sql:
                continue  # an empty statement: from this version on the metric has none
            after = versions[number + 1][0] * 10000 if number + 1 < len(versions) else None
            served = version_range(version * 10000, after)
            draft = DraftQuery(
                self.node.child("sqls").child(key).place,
                f"{self.name}_{version}" if len(versions) > 1 else self.name,
                sql,
                [],
                comment=node.comment() if number == 0 else (),
                interval=self.interval,
                settings=settings,
                timeout=node.number("statement_timeout_seconds") or None,
                requires={
                    **({"role": status} if status in ("primary", "standby") else {}),
                    **({"server_version": served} if served else {}),
                },
            )
            self._columns(draft)
            drafts.append(draft)
        return drafts

    def _columns(self, draft: DraftQuery) -> None:
        losses = self.node.source.losses
        result = columns_of(draft.sql)
        if result is None:
            losses.add_loss(
                draft.place, f"the columns of {draft.name} are unknown", "name them in its SQL instead of *"
            )
            return
        double = duplicate_names(result)
        tags = [column.name for column in result if _is_tag(column) and column.name not in double]
        columns = Columns({name.removeprefix(_TAG): name for name in tags})
        for name in sorted(double):
            losses.add_loss(draft.place, f"{draft.name} has the column {name} twice", "rename one with AS")
        for column in result:
            if _is_tag(column) or column.name in double | {_TIME}:
                continue
            if column.kind in ("text", "time"):
                message = f"{column.name} of {draft.name} is a {column.kind}, not a number"
                losses.add_loss(draft.place, message, "cast it to a number, or rename it to tag_...")
                continue
            original = f"pgwatch_{self.node.text('storage_name') or self.name}_{column.name}"
            number = f"{identifier(column.name)}::int" if column.kind == "boolean" else ""
            described = " ".join(self.node.text("description").split())
            draft.metrics.append(
                DraftMetric(
                    draft.place,
                    original,
                    metric_name(original),
                    f"{column.name}: {described}" if described else "",
                    columns.value(column.name, number),
                    unit=unit_of(original),
                    attribute_columns=columns.labels,
                    type="counter" if self._counts(column) else "gauge",
                )
            )
        draft.computed = columns.computed

    def _counts(self, column: SqlColumn) -> bool:
        """Return whether a column is a counter: only if `gauges` lists some columns but not this one."""
        gauges = self.node.texts("gauges")
        return bool(gauges) and not {"*", column.name} & set(gauges) and column.kind != "boolean"


def _is_tag(column: SqlColumn) -> bool:
    return column.name.startswith(_TAG) and column.name != _TAG


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()

"""Importer for pgwatch's metrics and presets, and the intervals in its sources.

Source: cybertec-postgresql/pgwatch 6, internal/metrics/types.go and internal/sinks/prometheus.go.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.model.duration import format_duration
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_yaml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import between, metric_name, unit_of
from poller.tools.importers.node import Node
from poller.tools.importers.sql_columns import Column, columns_of, twice
from poller.tools.importers.sql_projection import Columns, identifier, statement

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


def read(files: Sequence[Path], losses: Losses) -> list[DraftQuery]:
    """Return the queries of all metrics in `files`, with the intervals of their presets and sources."""
    roots = [source.root for source in open_each(files, lambda file: open_yaml(file, losses))]
    intervals = _intervals(roots)
    drafts: list[DraftQuery] = []
    defined: set[str] = set()
    for root in roots:
        if isinstance(root.value, list):
            continue
        root.others("metrics", "presets")
        root.unmade("metrics", "dbname")
        for name, node in root.entries("metrics"):
            if node.is_mapping():
                defined.add(name)
                drafts += _Metric(name, node, _interval(name, node, intervals)).queries()
    for name, found in intervals.items():
        if name not in defined:
            place = found[min(found)].place
            losses.lost(place, f"{name} is not in these files", "give the file that defines it as well")
    return drafts


def _intervals(roots: Sequence[Node]) -> dict[str, dict[float, Node]]:
    """Return, by metric, each interval from a preset or a source, and its location."""
    found: dict[str, dict[float, Node]] = {}
    presets = {name for root in roots for name, _ in root.entries("presets")}
    for root in roots:
        lists = [preset for _, preset in root.entries("presets")]
        key = "metrics"
        if isinstance(root.value, list):
            lists = [node for _, node in root.members() if node.is_mapping() and _is_used(node, presets)]
            key = "custom_metrics"
        for one in lists:
            if key == "metrics":
                one.others("description", "metrics")
            for name, _ in one.entries(key):
                seconds = one.child(key).number(name)
                if seconds:
                    found.setdefault(name, {})[seconds] = one
    return found


def _is_used(source: Node, presets: Container[str]) -> bool:
    """Return whether pgwatch queries a source; report its keys that have no meaning here."""
    source.others(*_SOURCE)
    source.connection("conn_str")
    name = source.text("name")
    if "is_enabled" in source and not source.flag("is_enabled"):
        source.changed("is_enabled", f"the source {name} is ignored, as there")
        return False
    if (kind := source.text("kind")) in _OTHER_KINDS:
        source.lost("kind", f"the source {name} is {kind}", "the poller asks PostgreSQL only")
        return False
    if source.entries("custom_tags"):
        instead = "set OTEL_RESOURCE_ATTRIBUTES of the poller of that source"
        source.lost("custom_tags", f"the tags of the source {name}", instead)
    if source.flag("only_if_master"):
        instead = (
            "write requires: role: primary in each query, or give the files to the primary's poller only"
        )
        source.lost("only_if_master", f"the source {name} is asked on a primary only", instead)
    for key in ("preset_metrics", "preset_metrics_standby"):
        preset = source.text(key)
        if preset and preset not in presets:
            source.lost(
                key, f"the preset {preset} is not in these files", "give the file that defines it too"
            )
        elif preset:
            what = f"every metric of these files is imported, not only those of the preset {preset}"
            source.changed(key, what)
    for key in ("custom_metrics_standby", "preset_metrics_standby"):
        if key in source and source.value[key]:
            instead = "write requires: role: primary, or standby, in the queries that differ"
            source.lost(key, f"the source {name} has other metrics on a standby", instead)
    return True


def _interval(name: str, node: Node, intervals: Mapping[str, Mapping[float, Node]]) -> float | None:
    known = sorted(intervals.get(name, {}))
    if not known:
        what = f"no preset in these files says how often {name} is asked for; here it is POLLER_INTERVAL"
        node.source.losses.changed(node.place, what)
        return None
    if len(known) > 1:
        told = ", ".join(map(format_duration, known))
        node.source.losses.changed(node.place, f"the interval of {name}, in presets {told}, is the longest")
    return known[-1]


@dataclass(frozen=True, slots=True)
class _Metric:
    """One pgwatch metric, with a statement for each range of server versions."""

    name: str
    node: Node
    interval: float | None

    def queries(self) -> list[DraftQuery]:
        node = self.node
        node.others(*_METRIC)
        if "init_sql" in node:
            node.lost("init_sql", "the poller changes nothing on a server", "run it once by hand")
        if "metric_attrs" in node:
            what = "no statement is for versions of an extension"
            node.lost("metric_attrs", what, "write requires: extensions:")
        status = node.text("node_status")
        if status not in ("", "primary", "standby"):
            node.lost("node_status", status, "write requires: role: primary, or standby")
        if "gauges" not in node:
            what = f"without it all columns of {self.name} are counters; here they are gauges"
            node.changed("gauges", what)
        for key, _ in node.entries("sqls"):
            if not _is_number(key):
                node.lost("sqls", f"the SQL for {key} of {self.name}", "write the server's major version")
        versions = sorted((int(float(key)), key) for key, _ in node.entries("sqls") if _is_number(key))
        drafts = []
        for number, (version, key) in enumerate(versions):
            sql = statement(node.child("sqls").text(key))
            if not sql:
                continue  # an empty statement: from this version on the metric has none
            after = versions[number + 1][0] * 10000 if number + 1 < len(versions) else None
            served = between(version * 10000, after)
            draft = DraftQuery(
                self.node.child("sqls").child(key).place,
                f"{self.name}_{version}" if len(versions) > 1 else self.name,
                sql,
                [],
                comment=node.comment() if number == 0 else (),
                interval=self.interval,
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
        found = columns_of(draft.sql)
        if found is None:
            losses.lost(draft.place, f"the columns of {draft.name}", "name them in its SQL, without a star")
            return
        double = twice(found)
        tags = [column.name for column in found if _is_tag(column) and column.name not in double]
        columns = Columns({name.removeprefix(_TAG): name for name in tags})
        for name in sorted(double):
            losses.lost(draft.place, f"{name}, which {draft.name} has twice", "rename one with AS")
        for column in found:
            if _is_tag(column) or column.name in double | {_TIME}:
                continue
            if column.kind in ("text", "time"):
                what = f"{column.name} of {draft.name} holds a {column.kind}, not a number"
                losses.lost(draft.place, what, "cast it to a number, or call it tag_...")
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

    def _counts(self, column: Column) -> bool:
        """Return whether a column is a counter: only if `gauges` lists some columns but not this one."""
        gauges = self.node.texts("gauges")
        return bool(gauges) and not {"*", column.name} & set(gauges) and column.kind != "boolean"


def _is_tag(column: Column) -> bool:
    return column.name.startswith(_TAG) and column.name != _TAG


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()

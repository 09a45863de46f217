"""Importer for Telegraf's SQL inputs: postgresql_extensible, and sql if its driver is PostgreSQL's.

Source: influxdata/telegraf, plugins/inputs/postgresql_extensible and plugins/inputs/sql; the names are those
of its serializer for Prometheus.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from poller.config.queries.files import MAX_BYTES
from poller.model.files import read_regular
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.files import open_each, open_toml
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import metric_name, unit_of, version_range
from poller.tools.importers.node import SourceNode
from poller.tools.importers.sql_columns import SqlColumn, columns_of, duplicate_names
from poller.tools.importers.sql_projection import Columns, identifier, statement
from poller.tools.importers.targets import DraftTargets, merge_equal

_CONNECTION = (
    "address", "outputaddress", "max_lifetime", "prepared_statements", "databases", "dsn",
    "connection_max_idle_time", "connection_max_life_time", "connection_max_open", "connection_max_idle",
    "disconnected_servers_behavior", "startup_error_behavior", "driver",
)  # fmt: skip
_PLUGIN = (
    "interval", "timeout", "query", "tags", "name_override", "name_prefix", "name_suffix", "alias",
    "precision", "collection_jitter", "collection_offset", "log_level", "fieldinclude", "fieldpass",
    "fieldexclude", "fielddrop",
)  # fmt: skip
_FILTERS = (
    "namepass", "namedrop", "taginclude", "tagexclude", "tagpass", "tagdrop", "metricpass",
)  # fmt: skip
_EXTENSIBLE = (
    "sqlquery", "script", "version", "minversion", "maxversion", "withdbname", "tagvalue", "measurement",
    "timestamp",
)  # fmt: skip
_SQL = (
    "query", "query_script", "measurement", "measurement_column", "time_column", "time_format",
    "tag_columns_include", "tag_columns_exclude", "field_columns_include", "field_columns_exclude",
    "field_columns_float", "field_columns_int", "field_columns_uint", "field_columns_bool",
    "field_columns_string",
)  # fmt: skip
_DRIVERS = {"pgx", "postgres", "postgresql", "cockroach"}
_CASTS = {
    "field_columns_float": "{}::float8",
    "field_columns_int": "trunc({}::numeric)",
    "field_columns_uint": "trunc({}::numeric)",
    "field_columns_bool": "{}::boolean::int",
}
_IGNORED = {"stats_reset"}

Matches = Callable[[str], bool]


def read(files: Sequence[Path], losses: Losses, targets: DraftTargets | None) -> list[DraftQuery]:
    """Return the queries of all SQL inputs in `files`, which form one configuration.

    Add the databases of the inputs to `targets`, unless it is None.
    """
    roots = [source.root for source in open_each(files, lambda file: open_toml(file, losses))]
    usual = next((root.child("agent").seconds("interval") for root in roots if "agent" in root), None)
    drafts: list[DraftQuery] = []
    for root in roots:
        inputs = root.child("inputs") if "inputs" in root else root
        extensible = inputs.items("postgresql_extensible")
        plain = inputs.items("sql")
        if not extensible and not plain:
            losses.add_loss(
                root.place, "contains no postgresql_extensible or sql input", "pass a file that contains one"
            )
        for plugin in extensible:
            drafts += _plugin(plugin, usual, _extensible, targets)
        for plugin in plain:
            if (driver := plugin.text("driver")) in _DRIVERS:
                drafts += _plugin(plugin, usual, _sql, targets)
            else:
                message = f"{driver or 'no driver'} is not PostgreSQL"
                plugin.report_loss("driver", message, "the poller supports PostgreSQL only")
    return drafts if targets is None else merge_equal(drafts)


def _plugin(
    node: SourceNode,
    usual: float | None,
    query: Callable[[SourceNode, SourceNode, DraftQuery], Columns | None],
    targets: DraftTargets | None,
) -> Iterator[DraftQuery]:
    node.report_unknown_keys(*_PLUGIN, *_CONNECTION, *_FILTERS)
    for key in _FILTERS:
        if key in node:
            node.report_loss(
                key, "Telegraf's filter", "remove the metrics that it drops, or filter in the SQL"
            )
    selectors: tuple[str, ...] = ()
    if targets is None:
        node.report_connection("address", "dsn")
    else:
        key = "address" if "address" in node else "dsn"
        connections = node.number("connection_max_open")
        if (target := targets.add(node, key, node.text("alias"), {}, node.place, connections)) is not None:
            selectors = (f"name:{target.name}",)
    if query is _extensible:
        node.report_omitted_labels("address", "server", are_targets=targets is not None)
    interval = node.seconds("interval") or usual
    if interval is None:
        node.report_change("interval", "was 10s by default; the interval is now POLLER_INTERVAL")
    for item in node.items("query"):
        sql = _statement(item)
        if sql is None:
            continue
        draft = DraftQuery(
            item.place, "", sql, [], comment=item.comment(), interval=interval, targets=selectors
        )
        draft.timeout = node.seconds("timeout") if "timeout" in node else None
        columns = query(node, item, draft)
        if columns is not None:
            draft.computed = columns.computed
            draft.name = draft.metrics[0].name if draft.metrics else "query"
            yield draft


def _statement(node: SourceNode) -> str | None:
    sql = node.text("sqlquery") or node.text("query")
    script = node.text("script") or node.text("query_script")
    if not sql and script:
        try:
            sql = read_regular(node.source.file.parent / script, MAX_BYTES).decode()
        except (OSError, ValueError):
            key = "script" if "script" in node else "query_script"
            node.report_loss(key, f"{script} cannot be read", "write the SQL instead")
            return None
    if re.search(r"\$\{\w+", sql):
        node.source.losses.add_loss(node.place, "the SQL contains ${...}", "write the value instead")
        return None
    return sql


def _extensible(plugin: SourceNode, node: SourceNode, draft: DraftQuery) -> Columns | None:
    node.report_unknown_keys(*_EXTENSIBLE)
    if node.flag("withdbname"):
        names = ", ".join("'" + name.replace("'", "''") + "'" for name in plugin.texts("databases"))
        draft.sql += f" IN ({names})" if names else " is not null"
    least = node.number("minversion") or node.number("version")
    version = version_range(_version(least), _version(node.number("maxversion")))
    draft.requires = {"server_version": version} if version else {}
    tags = {tag.strip() for tag in node.text("tagvalue").split(",")} - {""}
    columns = _columns_of(node, draft)
    if columns is None:
        return None
    labels = {column.name: column.name for column in columns if column.name in tags}
    connected: dict[str, str] = {}
    if any(column.name == "datname" for column in columns):
        labels["db"] = "datname"
    elif "db" not in labels:
        connected = {"db": "current_database()"}
    for missing in sorted(tags - labels.keys()):
        node.report_loss("tagvalue", f"the query has no column {missing}", "name it in the SQL with AS")
    measured = _measurement(plugin, node, "postgresql")
    rest = [c for c in columns if c.name not in labels.values() and c.name != node.text("timestamp")]
    fields = {column: "" for column in rest if column.name not in _IGNORED}
    used = _fields(plugin, draft, measured, Columns(labels, connected), fields)
    _set_time(node, "timestamp", draft, columns)
    return used


def _version(number: float | None) -> int | None:
    """Convert to `server_version_num`; Telegraf's number lacks the last two digits, the minor version."""
    return None if number is None else math.ceil(number / 100) * 10000


def _sql(plugin: SourceNode, node: SourceNode, draft: DraftQuery) -> Columns | None:
    node.report_unknown_keys(*_SQL)
    if "measurement_column" in node:
        node.report_loss(
            "measurement_column", "a metric's name cannot come from a column", "use the column as a label"
        )
    columns = _columns_of(node, draft)
    if columns is None:
        return None
    is_tag = _filter(node, "tag_columns_include", "tag_columns_exclude", unless=False)
    is_field = _filter(node, "field_columns_include", "field_columns_exclude", unless=True)
    labels = {column.name: column.name for column in columns if is_tag(column.name)}
    fields: dict[SqlColumn, str] = {}
    for column in columns:
        if column.name in (*labels, node.text("time_column"), node.text("measurement_column")):
            continue
        cast = next((cast for key, cast in _CASTS.items() if _matches(node.texts(key))(column.name)), "")
        if _matches(node.texts("field_columns_string"))(column.name):
            node.report_loss("field_columns_string", f"{column.name} is a text", "use it as a label")
        elif cast or is_field(column.name):
            # PostgreSQL has no cast from boolean to float8 or numeric; Telegraf does not export a time as a
            # number either.
            field = SqlColumn(column.name) if cast and column.kind == "text" else column
            fields[field] = cast.format(identifier(column.name))
    used = _fields(plugin, draft, _measurement(plugin, node, "sql"), Columns(labels), fields)
    _set_time(node, "time_column", draft, columns)
    return used


def _set_time(node: SourceNode, key: str, draft: DraftQuery, columns: Sequence[SqlColumn]) -> None:
    """Give each metric the time column that `key` names."""
    kind = next((column.kind for column in columns if column.name == node.text(key)), None)
    column = node.time_column(key, kind)
    for metric in draft.metrics:
        metric.time_column = column


def _columns_of(node: SourceNode, draft: DraftQuery) -> list[SqlColumn] | None:
    columns = columns_of(statement(draft.sql))
    if columns is None:
        node.source.losses.add_loss(
            node.place, "the columns of the SQL are unknown", "name them instead of *"
        )
        return None
    double = duplicate_names(columns)
    for name in sorted(double):
        node.source.losses.add_loss(node.place, f"the SQL has the column {name} twice", "rename one with AS")
    return [column for column in columns if column.name not in double]


def _measurement(plugin: SourceNode, node: SourceNode, usual: str) -> str:
    name = plugin.text("name_override") or node.text("measurement") or usual
    return f"{plugin.text('name_prefix')}{name}{plugin.text('name_suffix')}"


def _fields(
    plugin: SourceNode, draft: DraftQuery, measured: str, columns: Columns, fields: dict[SqlColumn, str]
) -> Columns:
    fixed = {name: plugin.child("tags").text(name) for name, _ in plugin.entries("tags")}
    include = _matches([*plugin.texts("fieldinclude"), *plugin.texts("fieldpass")] or ["*"])
    exclude = _matches([*plugin.texts("fieldexclude"), *plugin.texts("fielddrop")])
    for column, expression in fields.items():
        if not include(column.name) or exclude(column.name):
            continue
        if column.kind in ("text", "time"):
            message = f"{column.name} is a {column.kind}, not a number"
            plugin.source.losses.add_loss(draft.place, message, "cast it to a number, or use it as a label")
            continue
        number = f"{identifier(column.name)}::int" if column.kind == "boolean" else expression
        original = measured if column.name == "value" else f"{measured}_{column.name}"
        original = re.sub(r"[^A-Za-z0-9_:]", "_", original)
        draft.metrics.append(
            DraftMetric(
                draft.place,
                original,
                metric_name(original),
                "",
                columns.value(column.name, number),
                unit=unit_of(original),
                attribute_columns=columns.labels,
                attributes=fixed,
            )
        )
    return columns


def _filter(node: SourceNode, include: str, exclude: str, *, unless: bool) -> Matches:
    """Return a predicate for included and not excluded names; `unless` is its result without both lists."""
    if include not in node and exclude not in node:
        return lambda _: unless
    included = _matches(node.texts(include) or ["*"])
    excluded = _matches(node.texts(exclude))
    return lambda name: included(name) and not excluded(name)


def _matches(patterns: Sequence[str]) -> Matches:
    return lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)

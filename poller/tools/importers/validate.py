"""Validation of imported drafts, and the resulting query file."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poller.config.queries.load import validate
from poller.config.queries.query_file import QueryFile
from poller.config.yaml_reader import Document, Node, Position
from poller.model.catalog import Defaults
from poller.model.diagnostics import Diagnostic, Place
from poller.model.duration import format_duration
from poller.model.path import PathKey
from poller.model.printable import one_line
from poller.model.prometheus import metric_name
from poller.model.schedule import distances
from poller.model.text import quote
from poller.tools.check.warnings import query_warnings
from poller.tools.draft import yaml_writer
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import query_name
from poller.tools.importers.sql_columns import columns_of
from poller.tools.importers.sql_names import names_in
from poller.tools.importers.sql_projection import statement

_SHORTEST, _LONGEST = 1.0, 86400.0
"""Bounds of `interval` in seconds."""


@dataclass(frozen=True, slots=True)
class _DraftFile(QueryFile):
    """Drafts in the form of one query file, with the files and lines from which they were imported."""

    drafts: Sequence[DraftQuery] = ()

    def place(self, path: Sequence[PathKey]) -> Place:
        place = _draft_at(path, self.drafts).place
        return Place(place.file, place.line, tuple(path))


def validate_drafts(drafts: Sequence[DraftQuery], defaults: Defaults, losses: Losses) -> list[DraftQuery]:
    """Return the drafts that the model accepts, with unique names; report the rest as losses with reasons."""
    names: set[str] = set()
    for draft in drafts:
        _match_columns(draft, losses)
        if not draft.metrics and not losses.has_losses(draft.place):
            message = f"query {draft.name} has no metric"
            losses.add_loss(draft.place, message, "write the names of its value columns")
        draft.name = query_name(draft.name, names)
        names.add(draft.name)
        _limit_durations(draft, defaults, losses)
    _unify(drafts, losses)
    valid = [draft for draft in drafts if draft.metrics]
    while problems := validate(_as_files(valid), defaults)[1]:
        refused = {id(metric) for problem in problems for metric in _reject(valid, problem, losses)}
        for draft in valid:
            draft.metrics = [metric for metric in draft.metrics if id(metric) not in refused]
        valid = [draft for draft in valid if draft.metrics]
    places = {draft.place for draft in valid}
    for draft in drafts:
        if draft.place.path and draft.place not in places:
            losses.forget_changes(draft.place)
    for metric in {metric.name: metric for draft in reversed(valid) for metric in draft.metrics}.values():
        _report_name(metric, losses)
    for warning in query_warnings(_as_files(valid)):
        place = _draft_at(_path_of(warning), valid).place
        losses.add_warning(place, f"query {warning.subject}: {warning.message}")
    return valid


def _limit_durations(draft: DraftQuery, defaults: Defaults, losses: Losses) -> None:
    """Limit interval and timeout to the range that the model allows, and report each change."""

    def change(key: str, to: float, why: str) -> None:
        losses.add_change(
            draft.place,
            f"{key} {format_duration(getattr(draft, key))} {why}; it is now {format_duration(to)}",
        )
        setattr(draft, key, to)

    if draft.interval is not None and draft.interval < _SHORTEST:
        change("interval", _SHORTEST, "is below the minimum")
    if draft.interval is not None and draft.interval > _LONGEST:
        change("interval", _LONGEST, "is above the maximum")
    interval = defaults.interval if draft.interval is None else draft.interval
    if draft.schedule:
        interval = min(distances(draft.schedule).shortest, _LONGEST)
    if draft.timeout is not None and draft.timeout > interval:
        change("timeout", interval, "is longer than the interval")
    if draft.max_age is not None and draft.max_age < interval:
        change("max_age", interval, "is shorter than the interval")


def _match_columns(draft: DraftQuery, losses: Losses) -> None:
    """Drop metrics that read a missing or duplicate column, because a poll would reject the whole query."""
    columns = columns_of(statement(draft.sql))
    if columns is None:
        return
    counts = Counter(column.name for column in columns)
    metrics = []
    for metric in draft.metrics:
        read = {
            name
            for column in metric.columns
            for name in (names_in(draft.computed[column]) if column in draft.computed else {column})
            if name  # the model rejects an empty name
        }
        wrong = sorted(name for name in read if counts[name] != 1)
        if wrong:
            fault = "twice in" if counts[wrong[0]] else "missing from"
            message = f"{metric.original}: the column {wrong[0]} is {fault} the SQL"
            losses.add_loss(metric.place, message, "name every column with AS")
        else:
            metrics.append(metric)
    draft.metrics = metrics


def _unify(drafts: Sequence[DraftQuery], losses: Losses) -> None:
    """Make unit, type and description equal for all queries that feed the same metric."""
    first: dict[str, DraftMetric] = {}
    for draft in drafts:
        for metric in draft.metrics:
            namesake = _namesake(metric, first)
            namesake.description = namesake.description or metric.description
            metric.description = metric.description or namesake.description
            for key in ("unit", "type", "description"):
                old, new = getattr(metric, key), getattr(namesake, key)
                if old != new:
                    message = (
                        f"{key} {quote(old)} of {metric.name} is now {quote(new)}, as at {namesake.place}"
                    )
                    losses.add_change(metric.place, message)
                    setattr(metric, key, new)
    for draft in drafts:
        for metric in draft.metrics:
            description = first[metric.name].description
            metric.description = description or f"Column {metric.value_column} of query {draft.name}."


def _namesake(metric: DraftMetric, first: dict[str, DraftMetric]) -> DraftMetric:
    """Return the first metric of this name; rename a different metric whose lower-case name is the same."""
    name, number = metric.name, 2
    while (namesake := first.setdefault(metric.name, metric)).original != metric.original:
        metric.name, number = f"{name}_{number}", number + 1
    return namesake


def _as_files(drafts: Sequence[DraftQuery]) -> list[QueryFile]:
    data = {"queries": [draft.data() for draft in drafts]}
    return [_DraftFile(Path(), Document([], Node(Position(1, 1), data)), drafts)] if drafts else []


def _reject(drafts: Sequence[DraftQuery], problem: Diagnostic, losses: Losses) -> list[DraftMetric]:
    """Report a problem as lost and return the affected metrics: a single one, or all of the query."""
    path = _path_of(problem)
    refused = _draft_at(path, drafts)
    key = next((step for step in reversed(path) if isinstance(step, str)), "sql")
    message, _, advice = problem.message.partition("; ")
    subject = f"metric {refused.original}" if isinstance(refused, DraftMetric) else f"query {refused.name}"
    losses.add_loss(refused.place, f"{subject}: its {key} {message}", advice or "write it by hand")
    return [refused] if isinstance(refused, DraftMetric) else refused.metrics


def _draft_at(path: Sequence[PathKey], drafts: Sequence[DraftQuery]) -> DraftQuery | DraftMetric:
    """Return the metric of a path `queries[0].metrics[1]...`, or the query of another path."""
    match path:
        case (_, int(query), "metrics", int(metric), *_):
            return drafts[query].metrics[metric]
        case (_, int(query), *_):
            return drafts[query]
    raise AssertionError(path)


def _path_of(problem: Diagnostic) -> tuple[PathKey, ...]:
    return (problem.place.path if problem.place else None) or ()


def _report_name(metric: DraftMetric, losses: Losses) -> None:
    """Report the metric's name in Prometheus if it differs from the original."""
    exported = metric_name(metric.name, metric.unit, metric.type)
    if exported != metric.original:
        message = f"{metric.original} is now {exported} in Prometheus; use this name in dashboards and alerts"
        losses.add_change(metric.place, message)


def to_yaml(drafts: Sequence[DraftQuery], head: str) -> str:
    """Return a query file: `head` and each query's own comment as comments, followed by the queries."""
    return _comment(head.splitlines()) + "queries:\n" + "\n".join(map(_query, drafts))


def _query(draft: DraftQuery) -> str:
    data = draft.data()
    if "\n" in data["sql"]:
        data["sql"] += "\n"
    text = _comment(draft.comment) + yaml_writer.to_yaml(_flow_style(data), indent=0)
    return textwrap.indent(text, "  ", lambda line: line != "\n")


def _flow_style(value: Any, depth: int = 0) -> Any:
    """Write each mapping of scalars below the top level on one line."""
    if isinstance(value, Mapping):
        inner = {key: _flow_style(item, depth + 1) for key, item in value.items()}
        flat = depth and not any(isinstance(item, dict) for item in value.values())
        return yaml_writer.Pairs(inner) if flat else inner
    return [_flow_style(item) for item in value] if isinstance(value, list) else value


def _comment(lines: Sequence[str]) -> str:
    return "".join(f"# {one_line(line)}".rstrip() + "\n" for line in lines)

"""Difference between two catalogues, and the queries whose state remains valid after a reload."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from poller.model.duration import format_duration
from poller.model.query import DESCRIPTIONS, MetricDefinition, QueryDefinition

MOST_NAMES = 20
"""Maximum names, or lines of one kind, in a report; more are only counted."""
_DURATIONS = ("interval", "timeout", "max_age")


@dataclass(frozen=True, slots=True)
class Change:
    """A query with the same name but different definitions in both catalogues."""

    before: QueryDefinition
    after: QueryDefinition

    @property
    def changes_numbers(self) -> bool:
        """Whether the old values are not comparable with the new ones."""
        return self.before.digest != self.after.digest

    @property
    def changes_descriptions_only(self) -> bool:
        return _keys(self.before, DESCRIPTIONS) == _keys(self.after, DESCRIPTIONS)

    def __str__(self) -> str:
        """List the keys that differ, with the values of durations."""
        parts = []
        before, after = _keys(self.before), _keys(self.after)
        for key in before:
            if before[key] == after[key]:
                continue
            if key in _DURATIONS:
                old, new = (format_duration(getattr(query, key)) for query in (self.before, self.after))
                parts.append(f"{key} {old} -> {new}")
            elif key == "schedule":
                parts.append(f"schedule {self.before.schedule or 'none'} -> {self.after.schedule or 'none'}")
            else:
                parts.append(key)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Difference:
    """Effect of a reload; each part is in the order of the query files."""

    added: tuple[QueryDefinition, ...]
    removed: tuple[QueryDefinition, ...]
    changed: tuple[Change, ...]
    unchanged: int
    """Number of queries."""
    metrics: tuple[str, ...]
    """One line for each kind of change of metrics."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def dropped(self) -> frozenset[str]:
        """Queries whose values, state and history are no longer valid."""
        removed = {query.name for query in self.removed}
        return frozenset(removed | {change.after.name for change in self.changed if change.changes_numbers})

    @property
    def fresh(self) -> frozenset[str]:
        """Queries to poll at once: new ones, and those with changes other than descriptions."""
        changed = {change.after.name for change in self.changed if not change.changes_descriptions_only}
        return frozenset(changed | {query.name for query in self.added})

    def lines(self) -> Iterator[str]:
        """Return the difference in a few lines; the first is a summary."""
        yield (
            f"{len(self.added)} added, {len(self.removed)} removed, {len(self.changed)} changed, "
            f"{self.unchanged} unchanged"
        )
        for kind, queries in (("added", self.added), ("removed", self.removed)):
            if queries:
                yield f"{kind}: {listed(query.name for query in queries)}"
        for change in self.changed[:MOST_NAMES]:
            effect = "its old values are dropped" if change.changes_numbers else "its values remain"
            yield f"changed: {change.after.name} ({change}); {effect}"
        if (more := len(self.changed) - MOST_NAMES) > 0:
            yield f"changed: {more} more"
        yield from self.metrics


def compare(before: Sequence[QueryDefinition], after: Sequence[QueryDefinition]) -> Difference:
    """Return the difference of `after` from `before`; queries and metrics are matched by name."""
    old = {query.name: query for query in before}
    new = {query.name: query for query in after}
    both = [Change(old[name], query) for name, query in new.items() if name in old]
    changed = [change for change in both if _keys(change.before) != _keys(change.after)]
    return Difference(
        added=tuple(query for name, query in new.items() if name not in old),
        removed=tuple(query for name, query in old.items() if name not in new),
        changed=tuple(changed),
        unchanged=len(both) - len(changed),
        metrics=tuple(_metrics(_by_name(before), _by_name(after))),
    )


def _metrics(old: dict[str, MetricDefinition], new: dict[str, MetricDefinition]) -> Iterator[str]:
    if appear := [name for name in new if name not in old]:
        yield f"new metrics: {listed(appear)}"
    if vanish := [name for name in old if name not in new]:
        yield f"removed metrics: {listed(vanish)}"
    both = [(old[name], metric) for name, metric in new.items() if name in old]
    if types := [f"{a.name} {a.type} -> {b.type}" for a, b in both if a.type != b.type]:
        yield f"metrics with a new type: {listed(types)}"
    if units := [f"{a.name} {a.unit} -> {b.unit}" for a, b in both if a.unit != b.unit]:
        yield f"metrics with a new unit: {listed(units)}"
    if described := [a.name for a, b in both if a.description != b.description]:
        yield f"metrics with a new description: {listed(described)}"


def _by_name(queries: Iterable[QueryDefinition]) -> dict[str, MetricDefinition]:
    return {metric.name: metric for query in queries for metric in query.metrics}


def _keys(query: QueryDefinition, without: Collection[str] = ()) -> dict[str, str]:
    """Return every key as JSON, without the keys of the query and its metrics in `without`."""
    keys = {key: value for key, value in query.declared().items() if key not in without}
    keys["metrics"] = [
        {key: value for key, value in metric.items() if key not in without} for metric in keys["metrics"]
    ]
    # As JSON, because the attribute values 1, 1.0 and true are equal in Python.
    return {key: json.dumps(value) for key, value in keys.items()}


def listed(names: Iterable[str]) -> str:
    """Return the first names, and the number of the others."""
    names = list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")

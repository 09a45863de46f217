"""Difference between two catalogues, and the queries whose state remains valid after a reload."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from poller.model.duration import format_duration
from poller.model.query import MetricDefinition, QueryDefinition

MOST_NAMES = 20
"""Names, or lines of one kind, that are told before the rest is only counted."""
_DURATIONS = ("interval", "timeout", "max_age")
_WORDS = {"description", "alert"}
# When, how often and whether a query is sent, and in what words its numbers are described, decide nothing of
# the numbers. Whatever else a definition has is taken to decide them, what it may have one day included.
_OF_NO_BEARING = {*_DURATIONS, "group", "snapshot", "requires"}


@dataclass(frozen=True, slots=True)
class Change:
    """A query that both catalogues have under one name, with different definitions."""

    before: QueryDefinition
    after: QueryDefinition

    @property
    def is_another_question(self) -> bool:
        """Whether the values of the one say nothing of the other."""
        return _numbers(self.before) != _numbers(self.after)

    @property
    def is_of_words_only(self) -> bool:
        return _wordless(self.before) == _wordless(self.after)

    def __str__(self) -> str:
        """The keys that differ, and of durations the values."""
        parts = []
        before, after = _told(self.before), _told(self.after)
        for key in before:
            if before[key] == after[key]:
                continue
            if key in _DURATIONS:
                old, new = (format_duration(getattr(one, key)) for one in (self.before, self.after))
                parts.append(f"{key} {old} -> {new}")
            else:
                parts.append(key)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a reload brings; each part in the order of the query files."""

    added: tuple[QueryDefinition, ...]
    removed: tuple[QueryDefinition, ...]
    changed: tuple[Change, ...]
    unchanged: int
    """Queries."""
    metrics: tuple[str, ...]
    """A line for each kind of news of the metrics."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def dropped(self) -> frozenset[str]:
        """The queries whose values, record and history say nothing any more."""
        gone = {query.name for query in self.removed}
        return frozenset(gone | {one.after.name for one in self.changed if one.is_another_question})

    @property
    def fresh(self) -> frozenset[str]:
        """The queries to poll at once: new ones, and those that changed in more than words."""
        moved = {one.after.name for one in self.changed if not one.is_of_words_only}
        return frozenset(moved | {query.name for query in self.added})

    def lines(self) -> Iterator[str]:
        """The difference in a few lines, the first of them a summary."""
        yield (
            f"{len(self.added)} added, {len(self.removed)} removed, {len(self.changed)} changed, "
            f"{self.unchanged} unchanged"
        )
        for word, queries in (("added", self.added), ("removed", self.removed)):
            if queries:
                yield f"{word}: {_listed(query.name for query in queries)}"
        for one in self.changed[:MOST_NAMES]:
            then = "its old values are dropped" if one.is_another_question else "its values stay"
            yield f"changed: {one.after.name} ({one}); {then}"
        if (more := len(self.changed) - MOST_NAMES) > 0:
            yield f"changed: {more} more"
        yield from self.metrics


def compare(before: Sequence[QueryDefinition], after: Sequence[QueryDefinition]) -> Difference:
    """What is different in `after`; queries are the same by their name, metrics by theirs."""
    old = {query.name: query for query in before}
    new = {query.name: query for query in after}
    both = [Change(old[name], query) for name, query in new.items() if name in old]
    changed = [one for one in both if _told(one.before) != _told(one.after)]
    return Difference(
        added=tuple(query for name, query in new.items() if name not in old),
        removed=tuple(query for name, query in old.items() if name not in new),
        changed=tuple(changed),
        unchanged=len(both) - len(changed),
        metrics=tuple(_metrics(_by_name(before), _by_name(after))),
    )


def _metrics(old: dict[str, MetricDefinition], new: dict[str, MetricDefinition]) -> Iterator[str]:
    if appear := [name for name in new if name not in old]:
        yield f"metrics that appear: {_listed(appear)}"
    if vanish := [name for name in old if name not in new]:
        yield f"metrics that vanish: {_listed(vanish)}"
    both = [(old[name], metric) for name, metric in new.items() if name in old]
    if types := [f"{a.name} {a.type} -> {b.type}" for a, b in both if a.type != b.type]:
        yield f"metrics of another type: {_listed(types)}"
    if units := [f"{a.name} {a.unit} -> {b.unit}" for a, b in both if a.unit != b.unit]:
        yield f"metrics of another unit: {_listed(units)}"
    if described := [a.name for a, b in both if a.description != b.description]:
        yield f"metrics of another description: {_listed(described)}"


def _by_name(queries: Iterable[QueryDefinition]) -> dict[str, MetricDefinition]:
    return {metric.name: metric for query in queries for metric in query.metrics}


def _told(query: QueryDefinition, without: Collection[str] = ()) -> dict[str, str]:
    """What every key says, but for those of the metrics that are named in `without`."""
    told = query.declared()
    told["metrics"] = [
        {key: value for key, value in metric.items() if key not in without} for metric in told["metrics"]
    ]
    # As JSON, since to Python an attribute of 1, 1.0 and true are all the same.
    return {key: json.dumps(value) for key, value in told.items()}


def _wordless(query: QueryDefinition) -> dict[str, str]:
    return _told(query, _WORDS)


def _numbers(query: QueryDefinition) -> dict[str, str]:
    """What the numbers come of."""
    return {key: value for key, value in _wordless(query).items() if key not in _OF_NO_BEARING}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")

"""Duplicate series of several queries, which are omitted because the right value is unknown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.series import Key, key_of

Duplicates = Mapping[str, Collection[Key]]
"""The attributes of duplicate series, by metric."""


class DuplicateTracker:
    """Tracks which queries have a value for a series, for metrics that several queries report.

    Each result updates it. So the time to find the duplicate series of a tick depends only on the size of
    that tick, not on the total number of queries.
    """

    def __init__(self, queries: Iterable[QueryDefinition], results: Iterable[PollResult]) -> None:
        """Start with the last good `results` of `queries`."""
        counts = Counter(name for query in queries for name in {metric.name for metric in query.metrics})
        self._shared = {name for name, count in counts.items() if count > 1}
        self._series: dict[str, list[tuple[str, Key]]] = {}
        self._queries_of: dict[tuple[str, Key], set[str]] = {}
        for result in results:
            self.put(result)

    def put(self, result: PollResult) -> None:
        """Replace the series of the result's query."""
        query = result.query.name
        for series in self._series.pop(query, ()):
            queries = self._queries_of[series]
            queries.remove(query)
            if not queries:
                del self._queries_of[series]
        if self._shared.isdisjoint(metric.name for metric in result.query.metrics):
            return
        self._series[query] = [
            (sample.metric, key_of(sample.attributes))
            for sample in result.samples
            if sample.metric in self._shared
        ]
        for series in self._series[query]:
            self._queries_of.setdefault(series, set()).add(query)

    def duplicates(self, queries: Iterable[str], is_current: Callable[[str], bool]) -> Duplicates:
        """Return the series of `queries` that several queries report now; `is_current` takes a query name."""
        duplicates: defaultdict[str, set[Key]] = defaultdict(set)
        for query in queries:
            for metric, key in self._series.get(query, ()):
                reporting = self._queries_of[metric, key]
                if len(reporting) > 1 and sum(map(is_current, reporting)) > 1:
                    duplicates[metric].add(key)
        return duplicates


def without(result: PollResult, duplicates: Duplicates) -> PollResult:
    """Return `result` without its duplicate series, which count as `duplicate`, as within one result."""
    if not duplicates or not any(metric.name in duplicates for metric in result.query.metrics):
        return result
    remaining = tuple(
        sample
        for sample in result.samples
        if sample.metric not in duplicates or key_of(sample.attributes) not in duplicates[sample.metric]
    )
    lost = len(result.samples) - len(remaining)
    if not lost:
        return result
    rejected = Counter(result.rejected) + Counter(duplicate=lost)
    advice = result.advice or "another query has the same series; distinguish them by fixed attributes"
    return result._replace(samples=remaining, rejected=rejected, advice=advice)

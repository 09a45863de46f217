"""Duplicate series of several queries, which are omitted because the right value is unknown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.series import Key, key_of

Contested = Mapping[str, Collection[Key]]
"""The attributes of contested series, by metric."""


class Claims:
    """Tracks which queries have a value for a series, for metrics that several queries report.

    Each result updates it. So the time to find the contested series of a tick depends only on the size of
    that tick, not on the total number of queries.
    """

    def __init__(self, queries: Iterable[QueryDefinition], results: Iterable[PollResult]) -> None:
        """Start with the last good `results` of `queries`."""
        feeders = Counter(name for query in queries for name in {metric.name for metric in query.metrics})
        self._shared = {name for name, count in feeders.items() if count > 1}
        self._series: dict[str, list[tuple[str, Key]]] = {}
        self._claimants: dict[tuple[str, Key], set[str]] = {}
        for result in results:
            self.put(result)

    def put(self, result: PollResult) -> None:
        """Replace the series of the result's query."""
        query = result.query.name
        for series in self._series.pop(query, ()):
            claimants = self._claimants[series]
            claimants.remove(query)
            if not claimants:
                del self._claimants[series]
        if self._shared.isdisjoint(metric.name for metric in result.query.metrics):
            return
        self._series[query] = [
            (sample.metric, key_of(sample.attributes))
            for sample in result.samples
            if sample.metric in self._shared
        ]
        for series in self._series[query]:
            self._claimants.setdefault(series, set()).add(query)

    def contested(self, queries: Iterable[str], is_current: Callable[[str], bool]) -> Contested:
        """Return the series of `queries` that several queries report now; `is_current` takes a query name."""
        repeated: defaultdict[str, set[Key]] = defaultdict(set)
        for query in queries:
            for metric, key in self._series.get(query, ()):
                claimants = self._claimants[metric, key]
                if len(claimants) > 1 and sum(map(is_current, claimants)) > 1:
                    repeated[metric].add(key)
        return repeated


def without(result: PollResult, claims: Contested) -> PollResult:
    """Return `result` without its contested series, which count as `duplicate`, as within one result."""
    if not claims or not any(metric.name in claims for metric in result.query.metrics):
        return result
    remaining = tuple(
        sample
        for sample in result.samples
        if sample.metric not in claims or key_of(sample.attributes) not in claims[sample.metric]
    )
    lost = len(result.samples) - len(remaining)
    if not lost:
        return result
    rejected = Counter(result.rejected) + Counter(duplicate=lost)
    advice = result.advice or "another query has the same series; distinguish them by fixed attributes"
    return result._replace(samples=remaining, rejected=rejected, advice=advice)

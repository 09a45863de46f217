"""Find the series that two queries claim: one of them is wrong, and nobody can know which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from poller.closed import Key, key_of
from poller.result import PollResult

Contested = Mapping[str, Collection[Key]]
"""The attributes of contested series, by metric."""


def contested(results: Iterable[PollResult]) -> Contested:
    """The series that more than one of `results` has a value for."""
    results = tuple(results)
    names = [metric.name for result in results for metric in result.query.metrics]
    if len(set(names)) == len(names):
        return {}
    feeders = Counter(name for result in results for name in {metric.name for metric in result.query.metrics})
    shared = {name for name, count in feeders.items() if count > 1}
    claims: dict[str, Counter[Key]] = {name: Counter() for name in shared}
    for result in results:
        for sample in result.samples:
            if sample.metric in shared:
                claims[sample.metric][key_of(sample.attributes)] += 1
    found = {name: {key for key, count in keys.items() if count > 1} for name, keys in claims.items()}
    return {name: keys for name, keys in found.items() if keys}


def without(result: PollResult, claims: Contested) -> PollResult:
    """`result` without its contested series, which count as `duplicate`, as they do within one result."""
    if not claims or not any(metric.name in claims for metric in result.query.metrics):
        return result
    kept = tuple(
        sample
        for sample in result.samples
        if sample.metric not in claims or key_of(sample.attributes) not in claims[sample.metric]
    )
    lost = len(result.samples) - len(kept)
    if not lost:
        return result
    quarantined = Counter(result.quarantined) + Counter(duplicate=lost)
    advice = result.advice or "another query has the same series; tell them apart by fixed attributes"
    return result._replace(samples=kept, quarantined=quarantined, advice=advice)

"""Catalogue of all queries of all files, and the configuration: the catalogue and the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from poller.model.patterns import select_names
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.target import Target
from poller.model.text import did_you_mean, quote


@dataclass(frozen=True, slots=True)
class Defaults:
    """Settings of queries that do not declare them; durations in seconds."""

    interval: float
    timeout: float
    max_series: int
    namespace: str = ""
    """Prefix of every metric name, followed by an underscore."""
    max_cost: float | None = None


@dataclass(frozen=True)
class Catalog:
    """All queries of all files, each validated alone and together; queries in the order of the files."""

    queries: tuple[QueryDefinition, ...]
    files: tuple[Path, ...]

    @cached_property
    def metrics(self) -> dict[str, MetricDefinition]:
        """One definition for each metric, by its exported name; several queries may report the metric."""
        metrics: dict[str, MetricDefinition] = {}
        for query in self.queries:
            for metric in query.metrics:
                metrics.setdefault(metric.name, metric)
        return metrics

    def select(self, patterns: Sequence[str]) -> tuple[QueryDefinition, ...]:
        """Return the queries whose name matches any of `patterns` (`*`, `?` and `[...]`), in catalogue order.

        Raises ConfigError for patterns that match no query.
        """
        selected = select_names(patterns, [query.name for query in self.queries], "--query", _no_query)
        return tuple(query for query in self.queries if query.name in selected)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The queries and the targets, which can be loaded again while the poller runs."""

    catalog: Catalog
    targets: tuple[Target, ...]


def _no_query(pattern: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    hint = f"{did_you_mean(pattern, names) or ';'} there are: {', '.join(sorted(names)[:20])}{more}"
    return f"{quote(pattern)} matches no query{hint}"

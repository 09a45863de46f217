"""Expected metrics of a load according to the catalogue: every series, and no others."""

from __future__ import annotations

from collections import Counter
from itertools import product

from poller.events._catalog.declaration import Metric
from poller.events.health import PATHS
from tests.bed.eventmetrics import EventMetricsSeen, Series
from tests.bed.load import Load

AT_INTERVALS = {
    "notification_cleanup": "run_notification_cleanup",
    "backup_cleanup_ran": "run_backup_cleanup",
}
"""Events that repeat whatever the load is, with the spans that count them."""
FAILED_AT_INTERVALS = {"attachment_cleanup_failed": "run_attachment_cleanup"}
"""The same for failures."""


def counts(load: Load, metrics: EventMetricsSeen) -> dict[Series, float]:
    """Return the value of each series at the end of the load; for a histogram, its count."""
    totals = Counter(load.counted)
    totals.update({(event,): len(values) for event, values in load.recorded.items()})
    totals.update(_requests(load))
    for event, span in AT_INTERVALS.items():
        totals[event,] = metrics.spans(span, failed=False)
    for event, span in FAILED_AT_INTERVALS.items():
        totals[event,] = metrics.spans(span, failed=True)
    totals.update({("health_checked", component): 1 for component in ("database", "storage", "pubsub")})
    return {
        series: totals[series]
        for event, metric in metrics.declared.items()
        for series in _series(event, metric, totals)
    }


def sums(load: Load) -> dict[Series, float]:
    """Return the sums of the histograms of sizes and batches."""
    return {(event,): sum(values) for event, values in load.recorded.items()}


def _requests(load: Load) -> Counter[Series]:
    totals: Counter[Series] = Counter()
    for (method, route, status), count in load.responses.items():
        if route in PATHS:
            continue  # probes are not counted
        totals["http_request", method, route, str(status)] += count
        totals["http_request_duration", route] += count
        totals["rate_limit_decided", "throttled" if status == 429 else "allowed"] += count
    return +totals


def _series(event: str, metric: Metric, totals: Counter[Series]) -> list[Series]:
    """Return every series of a metric with declared attribute values; of any other, the reported series."""
    if all(attribute.values for attribute in metric.attributes):
        return [(event, *values) for values in product(*(item.values for item in metric.attributes))]
    return [series for series in totals if series[0] == event]

"""What the catalogue says must be told of a load: every series there is, and no other."""

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
"""What happens again and again whatever the load is, by the spans that tell how often."""
FAILED_AT_INTERVALS = {"attachment_cleanup_failed": "run_attachment_cleanup"}
"""The same, where it failed."""


def counts(load: Load, metrics: EventMetricsSeen) -> dict[Series, float]:
    """The value of each series when all is over; of a histogram how often it was recorded."""
    told = Counter(load.told)
    told.update({(event,): len(values) for event, values in load.recorded.items()})
    told.update(_requests(load))
    for event, span in AT_INTERVALS.items():
        told[event,] = metrics.spans(span, failed=False)
    for event, span in FAILED_AT_INTERVALS.items():
        told[event,] = metrics.spans(span, failed=True)
    told.update({("health_checked", component): 1 for component in ("database", "storage", "pubsub")})
    return {
        series: told[series]
        for event, metric in metrics.declared.items()
        for series in _series(event, metric, told)
    }


def sums(load: Load) -> dict[Series, float]:
    """What comes together in the histograms of sizes and batches."""
    return {(event,): sum(values) for event, values in load.recorded.items()}


def _requests(load: Load) -> Counter[Series]:
    told: Counter[Series] = Counter()
    for (method, route, status), count in load.seen.items():
        if route in PATHS:
            continue  # probes are not counted
        told["http_request", method, route, str(status)] += count
        told["http_request_duration", route] += count
        told["rate_limit_decided", "throttled" if status == 429 else "allowed"] += count
    return +told


def _series(event: str, metric: Metric, told: Counter[Series]) -> list[Series]:
    """All of a metric whose attributes have declared values; of any other those that were told."""
    if all(attribute.values for attribute in metric.attributes):
        return [(event, *values) for values in product(*(one.values for one in metric.attributes))]
    return [series for series in told if series[0] == event]

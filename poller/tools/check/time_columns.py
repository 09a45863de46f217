"""Times of data points that a backend ignores or refuses, and buckets that are not over."""

from __future__ import annotations

import math
from collections.abc import Iterator

from poller.config.queries.sql_ast import truncated
from poller.model.duration import format_duration

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
"""Seconds of a bucket of `date_trunc`."""
_LOOKBACK = 300.0
"""Seconds that an instant query looks back (Prometheus documentation, "Querying basics", "Staleness")."""
_HEAD = 3600.0
"""Seconds by which a sample may be older than the newest of all series: half of the 2 hours of a block.

Older samples require out_of_order_time_window (prometheus/prometheus, tsdb/head_append.go,
`appendableMinValidTime` and `memSeries.appendable`).
"""


def time_problems(
    sql: str, metric: str, column: str, settle: float, interval: float
) -> Iterator[tuple[str, str]]:
    """Yield rule and message of each problem with the times of `metric`; durations are in seconds."""
    unit = truncated(sql, column)
    if unit in _UNITS and settle < _UNITS[unit]:
        message = (
            f"is shorter than the {unit} that begins at {column!r}, so an incomplete number is exported; "
            f"add interval '1 {unit}' to {column!r}, or write {format_duration(settle + _UNITS[unit])}"
        )
        yield "open-bucket", message
    age = settle + interval
    if age > _HEAD:
        message = (
            f"and interval make data points up to {format_duration(age)} old, and Prometheus refuses those "
            "older than 1h; write `storage: {tsdb: {out_of_order_time_window: "
            f"{math.ceil(age / _HEAD) + 1}h}}}}` in its configuration"
        )
        yield "old-times", message
    if age > _LOOKBACK:
        message = (
            f"and interval make data points up to {format_duration(age)} old, and instant queries and alerts "
            f"of Prometheus look back 5m; write last_over_time({metric}[RANGE]) in them"
        )
        yield "old-times", message

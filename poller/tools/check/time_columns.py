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
_HOUR = 3600.0


def time_problems(
    sql: str, metric: str, column: str, settle: float, interval: float
) -> Iterator[tuple[str, str]]:
    """Yield rule and message of each problem with the times of `metric`; durations are in seconds."""
    unit = truncated(sql, column)
    if unit in _UNITS and settle < _UNITS[unit]:
        message = (
            f"the {unit} that begins at {column!r} is exported before it is over; add interval '1 {unit}' to "
            f"{column!r}, or write settle: {format_duration(settle + _UNITS[unit])}"
        )
        yield "open-bucket", message
    age = settle + interval
    old = f"with the interval, data points are up to {format_duration(age)} old"
    # Its OTLP receiver adds target_info to each request, with the time of the data points. After a request of
    # now it is out of order, and the whole request is refused (prometheus/prometheus, issue 16063).
    window = f"{{tsdb: {{out_of_order_time_window: {math.ceil(age / _HOUR) + 1}h}}}}"
    message = (
        f"{old}, and Prometheus refuses times in the past; write `storage: {window}` in its configuration"
    )
    yield "old-times", message
    if age > _LOOKBACK:
        message = (
            f"{old}, and instant queries and alerts of Prometheus look back 5m; "
            f"write last_over_time({metric}[RANGE]) in them"
        )
        yield "old-times", message

"""Show OpenTelemetry what the poller says of itself and of the server that it polls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from poller.result import PollResult
from poller.state import state_of

if TYPE_CHECKING:
    from poller.whereabouts import Sighting, Whereabouts

QUERY = "poller.query.name"
STATE = "poller.state"
DURATION_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
"""Seconds; those of `db.client.operation.duration` (semantic conventions 1.44) with a longer tail."""


def register_replica_gauges(
    meter: Meter, whereabouts: Whereabouts, clock: Callable[[], float] = time.monotonic
) -> None:
    """Create the gauges of the server itself; they are absent once it has not been seen for too long."""

    def gauge(
        name: str, unit: str, description: str, read: Callable[[Sighting, float], float | None]
    ) -> None:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            now = clock()
            seen = whereabouts.seen(now)
            value = read(seen, now - seen.at) if seen else None
            if seen and value is not None:
                yield Observation(value, {"server.address": seen.address, "server.port": seen.port})

        meter.create_observable_gauge(f"poller.replica.{name}", [observe], unit=unit, description=description)

    gauge("lag", "s", "Replay lag when it was last looked at; absent while unknown.", lambda s, _: s.lag)
    gauge(
        "data_age",
        "s",
        "How old, at most, the newest state of the primary is that the values can show.",
        lambda s, since: None if s.data_age is None else s.data_age + since,
    )
    gauge(
        "standby",
        "{standby}",  # a unit of 1 would make it a `_ratio` in Prometheus
        "1 while the server is a standby, 0 while it is a primary.",
        lambda s, _: int(s.standby),
    )
    gauge(
        "timeline",
        "{timeline}",
        "Timeline of the server; it grows by one at a promotion.",
        lambda s, _: s.timeline,
    )


class SelfMetrics:
    """What the poller counts of itself, under `poller.*`, told apart by `poller.query.name`."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            "poller.poll.duration",
            unit="s",
            description="Time that one poll of a query kept the connection.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES,
        )
        self._polls = meter.create_counter(
            "poller.polls",
            unit="{poll}",
            description="Polls by the state they end in; failures by error.type and SQLSTATE as well.",
        )
        self._quarantined = meter.create_counter(
            "poller.query.quarantined",
            unit="{data_point}",
            description="Data points that were not exported because they are not true numbers, by reason.",
        )
        self._folded = meter.create_counter(
            "poller.query.folded",
            unit="{data_point}",
            description="Data points beyond max_series that are summed up in a series `other`.",
        )
        self._overruns = meter.create_counter(
            "poller.tick.overruns",
            unit="{tick}",
            description="Ticks left out because the one before still ran.",
        )

    def record(self, result: PollResult) -> None:
        """Count one poll."""
        state = state_of(result)
        attributes = {QUERY: result.query.name, STATE: state.word}
        if result.error is not None:
            attributes["error.type"] = result.error.kind
        if state.word != "skipped":
            self._duration.record(result.duration, attributes)
        if result.error is not None and result.error.sqlstate:
            attributes = {**attributes, "db.response.status_code": result.error.sqlstate}
        if result.error is not None and result.error.conflict:
            attributes = {**attributes, "poller.conflict": result.error.conflict}
        elif state.reason is not None and result.error is None:
            attributes["poller.reason"] = state.reason
        self._polls.add(1, attributes)
        if result.folded:
            self._folded.add(result.folded, {QUERY: result.query.name})
        for reason, count in result.quarantined.items():
            self._quarantined.add(count, {QUERY: result.query.name, "poller.reason": reason})

    def overrun(self, tick: str) -> None:
        """Count one tick that was left out."""
        self._overruns.add(1, {"poller.tick.name": tick})

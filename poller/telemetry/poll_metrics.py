"""Metrics of the poller itself: polls, their durations and what was not exported, under `poller.*`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from poller.model.result import PollResult, state_of
from poller.model.tick import tick_name

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import SpanContext

QUERY = "poller.query.name"
STATE = "poller.state"
TICK = "poller.tick.name"
DURATION_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
"""In seconds: those of `db.client.operation.duration` (semantic conventions 1.44) with a longer tail."""


class PollMetrics:
    """Synchronous instruments that count polls; their data points live as long as the process."""

    def __init__(self, meter: Meter, *, by_query: bool = True) -> None:
        """Create the instruments; unless `by_query`, no data point names a query.

        None names a target, because the SDK keeps every attribute set, and databases come and go.
        """
        self._by_query = by_query
        self._duration = meter.create_histogram(
            "poller.poll.duration",
            unit="s",
            description="Time that the poll of one query used the connection, by tick.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES,
        )
        self._polls = meter.create_counter(
            "poller.polls",
            unit="{poll}",
            description="Polls by the state they end in; failures by error.type and SQLSTATE as well.",
        )
        self._rejected = meter.create_counter(
            "poller.query.quarantined",
            unit="{data_point}",
            description="Data points that were not exported because they are invalid, by reason.",
        )
        self._folded = meter.create_counter(
            "poller.query.folded",
            unit="{data_point}",
            description="Data points above max_series that are added up in a series `other`.",
        )
        self._plan_changes = meter.create_counter(
            "poller.query.plan_changes",
            unit="{change}",
            description="Changed plans of queries whose cost is compared with a limit.",
        )
        self._overruns = meter.create_counter(
            "poller.tick.overruns",
            unit="{tick}",
            description="Ticks that were skipped because the previous one was still running.",
        )

    def record(self, result: PollResult, span: SpanContext | None = None) -> None:
        """Count one poll of a query; its exemplar refers to `span`, if given."""
        context = set_span_in_context(NonRecordingSpan(span)) if span is not None else None
        query = {QUERY: result.query.name} if self._by_query else {}
        state, error = state_of(result), result.error
        attributes = {**query, STATE: state.name}
        if state.name != "skipped":
            self._duration.record(result.duration, {TICK: tick_name(result.query)}, context)
        if error is not None:
            attributes["error.type"] = error.kind
            if error.sqlstate:
                attributes["db.response.status_code"] = error.sqlstate
            if error.conflict:
                attributes["poller.conflict"] = error.conflict
        elif state.reason is not None:
            attributes["poller.reason"] = state.reason
        self._polls.add(1, attributes, context)
        if result.folded:
            self._folded.add(result.folded, query, context)
        for reason, count in result.rejected.items():
            self._rejected.add(count, {**query, "poller.reason": reason}, context)

    def plan_changed(self, query: str) -> None:
        """Count one change of the plan of `query`."""
        self._plan_changes.add(1, {QUERY: query} if self._by_query else {})

    def overrun(self, tick: str) -> None:
        """Count one tick that was skipped."""
        self._overruns.add(1, {TICK: tick})


class TargetPolls:
    """Observer that counts the polls of one target in the instruments that all targets share."""

    def __init__(
        self, metrics: PollMetrics, span_of: Callable[[str], SpanContext | None] = lambda _: None
    ) -> None:
        """`span_of` returns the span of a query, by its name, for exemplars."""
        self._metrics = metrics
        self._span_of = span_of

    def observe(self, results: Iterable[PollResult]) -> None:
        """Count the polls of one tick."""
        for result in results:
            self._metrics.record(result, self._span_of(result.query.name))

    def plan_changed(self, query: str) -> None:
        """Count one change of the plan of `query`."""
        self._metrics.plan_changed(query)

    def overrun(self, tick: str) -> None:
        """Count one tick that was skipped."""
        self._metrics.overrun(tick)

"""Count what the poller does, under `poller.*`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from poller.encoding import EncodedMetric
from poller.instruments import Counter, Histogram, Instrument
from poller.preferences import Preferences
from poller.result import PollResult
from poller.state import state_of

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

QUERY = "poller.query.name"
STATE = "poller.state"
DURATION_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
"""Seconds; those of `db.client.operation.duration` (semantic conventions 1.44) with a longer tail."""


class SelfMetrics:
    """What the poller counts of itself, told apart by `poller.query.name`."""

    def __init__(self, preferences: Preferences | None = None) -> None:
        preferences = preferences or Preferences()
        self._duration = Histogram(
            "poller.poll.duration",
            "s",
            "Time that one poll of a query kept the connection.",
            DURATION_BOUNDARIES,
            preferences,
        )
        self._polls = Counter(
            "poller.polls",
            "{poll}",
            "Polls by the state they end in; failures by error.type and SQLSTATE as well.",
            preferences,
        )
        self._quarantined = Counter(
            "poller.query.quarantined",
            "{data_point}",
            "Data points that were not exported because they are not true numbers, by reason.",
            preferences,
        )
        self._folded = Counter(
            "poller.query.folded",
            "{data_point}",
            "Data points beyond max_series that are summed up in a series `other`.",
            preferences,
        )
        self._overruns = Counter(
            "poller.tick.overruns",
            "{tick}",
            "Ticks left out because the one before still ran.",
            preferences,
        )
        self._all: tuple[Instrument, ...] = (
            self._duration,
            self._polls,
            self._quarantined,
            self._folded,
            self._overruns,
        )

    def record(self, result: PollResult, within: SpanContext | None = None) -> None:
        """Count one poll, made `within` a span."""
        state, error = state_of(result), result.error
        attributes = {QUERY: result.query.name, STATE: state.word}
        if error is not None:
            attributes["error.type"] = error.kind
        if state.word != "skipped":
            self._duration.record(result.duration, attributes, within)
        if error is not None and error.sqlstate:
            attributes["db.response.status_code"] = error.sqlstate
        if error is not None and error.conflict:
            attributes["poller.conflict"] = error.conflict
        elif state.reason is not None and error is None:
            attributes["poller.reason"] = state.reason
        self._polls.add(1, attributes, within)
        if result.folded:
            self._folded.add(result.folded, {QUERY: result.query.name}, within)
        for reason, count in result.quarantined.items():
            self._quarantined.add(count, {QUERY: result.query.name, "poller.reason": reason}, within)

    def overrun(self, tick: str) -> None:
        """Count one tick that was left out."""
        self._overruns.add(1, {"poller.tick.name": tick})

    def collect(self, at: int) -> Iterator[EncodedMetric]:
        """All of it so far, stamped `at` (nanoseconds since 1970)."""
        for instrument in self._all:
            if (told := instrument.collect(at)) is not None:
                yield told

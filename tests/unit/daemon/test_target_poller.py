"""The poller of a target releases its connection only between two polls."""

from __future__ import annotations

import math
from collections.abc import Sequence

from poller.config.targets.schema import DeclaredTarget
from poller.daemon.poll_cycle import PollCycle
from poller.daemon.target_poller import AnswerListener, TargetPoller
from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.model.rows import Column, Rows
from poller.polling.store import ResultStore
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.server_tracker import ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.traces import Tracing
from tests.bed.definitions import Source, a_query

QUERIES = [a_query("users")]


class RestingSource(Source):
    """A source that records when its connection may be closed."""

    def __init__(self) -> None:
        super().__init__(self._rows)
        self.rested: list[float] = []
        self.poller: TargetPoller | None = None

    def rest(self, seconds: float) -> None:
        self.rested.append(seconds)

    def _rows(self, queries: Sequence[QueryDefinition]) -> list[Answer]:
        assert self.poller is not None
        self.poller.rest(math.inf)  # as another thread does while this poll runs
        return [Answer(query, 0.0, 0.0, Rows((Column("n", 23),), [(b"7",)])) for query in queries]


def test_a_connection_is_not_closed_while_a_poll_uses_it() -> None:
    source = RestingSource()
    cycle = PollCycle(
        source,
        ResultStore(QUERIES),
        tracker=ServerTracker(900.0),
        tracing=Tracing(None),
        metrics=None,
        breaker=CircuitBreaker(1.0, None),
        log=PollLog(),
    )
    target = DeclaredTarget.model_validate({"name": "eu-1", "url": "host=h"}).definition()
    source.poller = TargetPoller(target, QUERIES, cycle, "eu-1", AnswerListener())
    source.poller.run(QUERIES, lambda: None)
    assert source.rested == []
    source.poller.rest(1.0)
    assert source.rested == [1.0]

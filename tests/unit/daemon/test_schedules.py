"""Queries with a schedule run at its times only, and miss no run because of a restart or a set clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from poller.config.targets.schema import DeclaredTarget
from poller.daemon.poll_cycle import PollCycle
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.target_poller import AnswerListener, TargetPoller
from poller.daemon.timer import Entry, Timer
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import GoodResult, PollResult
from poller.model.tick import Tick, ticks
from poller.polling.store import ResultStore
from poller.postgres.circuit_breaker import FAILURES_BEFORE_A_BREAK, CircuitBreaker
from poller.postgres.server_tracker import ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.traces import Tracing
from tests.bed.definitions import Source, a_query, a_result
from tests.bed.pollable import FunctionTarget
from tests.bed.process import eventually

DAY = 86400.0
ENTRY = Entry("", "t")
GONE = PollError("unavailable", "connection refused")
GONE.unsent = GONE.server_wide = True
REJECTED = PollError("rejected", "no")


class Bed:
    """A running scheduler, and a target that records its polls."""

    def __init__(self) -> None:
        self.polls: list[tuple[str, float]] = []
        self.errors: list[PollError] = []
        """Errors of the next polls, the last one first."""
        self.gate = threading.Event()
        self.gate.set()
        self.target = FunctionTarget(self._poll)
        self.scheduler = PollScheduler(QueueConfig())
        self.scheduler.start()

    def plan(self, *queries: QueryDefinition, fresh: set[str]) -> None:
        self.scheduler.replace(self.target, ticks(queries, "host"), fresh)

    def polled(self, count: int) -> bool:
        return eventually(lambda: len(self.polls) >= count, 90.0)

    def _poll(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        self.polls += [(query.name, time.time()) for query in queries]
        self.gate.wait(60)
        error = self.errors.pop() if self.errors else None
        return [a_result(query, outcome="failed" if error else "ok", error=error) for query in queries]


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    yield bed
    assert bed.scheduler.stop(bed.gate.set, 30.0)


def scheduled(name: str = "q", schedule: str = "15 3 * * *", **fields: Any) -> QueryDefinition:
    return a_query(name, schedule=schedule, **{"interval": DAY, "max_age": 2 * DAY, **fields})


def tick_of(*queries: QueryDefinition) -> Tick:
    (tick,) = ticks(queries, "host")
    return tick


def hours_ago(hours: float) -> str:
    """Return a daily schedule whose last run was that long ago, rounded down to minutes."""
    at = datetime.now(UTC) - timedelta(hours=hours)
    return f"{at.minute} {at.hour} * * *"


@pytest.fixture
def timer() -> Iterator[Timer]:
    timer = Timer(lambda _: None)
    timer.start()
    yield timer
    timer.stop()


def test_queries_of_equal_group_schedule_and_time_zone_share_a_tick_without_an_offset() -> None:
    queries = [
        scheduled("a", "@daily"),
        scheduled("b", "0 0 * * *"),
        scheduled("c", "0 0 * * *", timezone="Europe/Berlin"),
        scheduled("d", "0 0 * * *", group="extra"),
        a_query("e", interval=DAY),
    ]
    assert [(tick.name, [query.name for query in tick.queries]) for tick in ticks(queries, "host")] == [
        ("default/0 0 * * * UTC", ["a", "b"]),
        ("default/0 0 * * * Europe/Berlin", ["c"]),
        ("extra/0 0 * * * UTC", ["d"]),
        ("default/24h", ["e"]),
    ]
    assert [tick.offset for tick in ticks(queries[:4], "host")] == [0.0, 0.0, 0.0]


def test_a_tick_is_planned_at_the_next_time_of_its_schedule(timer: Timer) -> None:
    now = datetime.now(UTC)
    timer.enter(ENTRY, tick_of(scheduled(schedule="15 3 * * *")), now.timestamp())
    at = datetime.fromtimestamp(timer.next_run(ENTRY) or 0.0, UTC)
    assert (at.hour, at.minute, at.second, at.microsecond) == (3, 15, 0, 0)
    assert timedelta(0) <= at - now <= timedelta(days=1)


def test_a_tick_is_planned_again_if_the_clock_was_set_back(
    timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    tick = tick_of(scheduled(schedule="15 3 * * *"))
    timer.enter(ENTRY, tick, time.time())
    planned = timer.next_run(ENTRY)
    for back in (0.0, 30.0):
        timer.set_right([(ENTRY, tick)], time.time() - back)
    assert not caplog.records, "a small correction of the clock repeats no run"
    timer.set_right([(ENTRY, tick)], time.time() - 3 * DAY)
    assert [record.getMessage() for record in caplog.records] == [
        "the clock was set back; tick default/15 3 * * * UTC is rescheduled"
    ]
    assert timer.next_run(ENTRY) == planned, "the real clock was not set"


def test_a_run_that_has_just_begun_is_not_repeated_by_the_check_of_the_clock(
    timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    began = datetime.now(UTC).replace(second=0, microsecond=0).timestamp()
    tick = tick_of(scheduled(schedule=f"{datetime.fromtimestamp(began, UTC):%M %H} * * *"))
    timer.enter(ENTRY, tick, began)
    for moment in (began - 0.5, began, began + 0.5, began + 59.0):
        timer.set_right([(ENTRY, tick)], moment)
    assert not caplog.records


def test_a_waiting_tick_does_not_run_at_the_start_and_readiness_does_not_wait_for_it(bed: Bed) -> None:
    later = scheduled("later", hours_ago(12))
    bed.plan(later, fresh=set())
    assert bed.scheduler.ready
    bed.plan(later, a_query("soon"), fresh={"soon"})
    assert bed.polled(1)
    assert eventually(lambda: bed.scheduler.ready)
    assert [name for name, _ in bed.polls] == ["soon"]
    assert bed.scheduler.next_runs().keys() == {"later", "soon"}


def test_readiness_does_not_wait_for_a_missed_run(bed: Bed) -> None:
    bed.gate.clear()
    bed.plan(scheduled("heavy", hours_ago(1)), fresh={"heavy"})
    assert bed.polled(1)
    assert bed.scheduler.ready


def test_a_run_that_reaches_no_server_is_tried_again(bed: Bed) -> None:
    bed.errors = [GONE]
    bed.plan(scheduled("heavy", hours_ago(1)), fresh={"heavy"})
    assert bed.polled(2)


def test_a_run_that_the_server_rejects_is_not_tried_again_before_its_time(bed: Bed) -> None:
    bed.errors = [REJECTED]
    bed.plan(scheduled("heavy", hours_ago(1)), a_query("other"), fresh={"heavy"})
    assert bed.polled(1)
    bed.plan(scheduled("heavy", hours_ago(1)), a_query("other"), fresh={"other"})
    assert bed.polled(2)
    assert [name for name, _ in bed.polls] == ["heavy", "other"]


@pytest.mark.slow
def test_a_tick_runs_when_its_minute_begins(bed: Bed) -> None:
    started = time.time()
    bed.plan(scheduled("q", "* * * * *", interval=60.0), fresh=set())
    assert bed.polled(1)
    assert bed.polls[0][1] // 60 > started // 60


def poller_of(*queries: QueryDefinition, ended: dict[str, float]) -> TargetPoller:
    """Return the poller of a new process; `ended` has the ages in hours of the stored values."""
    now, wall = time.monotonic(), time.time()
    restored = [
        GoodResult(a_result(query, at=wall - 3600 * ended[query.name]), now - 3600 * ended[query.name])
        for query in queries
        if query.name in ended
    ]
    cycle = PollCycle(
        Source(lambda _: []),
        ResultStore(queries, restored),
        tracker=ServerTracker(900.0),
        tracing=Tracing(None),
        metrics=None,
        breaker=CircuitBreaker(1.0, None),
        log=PollLog(),
    )
    target = DeclaredTarget.model_validate({"name": "eu-1", "url": "host=h"}).definition()
    return TargetPoller(target, queries, cycle, "eu-1", AnswerListener())


def test_only_a_missed_run_is_made_up_at_the_start() -> None:
    poller = poller_of(
        scheduled("missed", hours_ago(3)),
        scheduled("long_missed", hours_ago(3)),
        scheduled("done", hours_ago(3)),
        scheduled("unknown", hours_ago(3)),
        scheduled("just_now", hours_ago(0.05)),
        a_query("interval"),
        ended={"missed": 10.0, "long_missed": 1000.0, "done": 2.0, "interval": 0.01},
    )
    assert poller.fresh == {"missed", "long_missed", "just_now", "interval"}


def test_a_query_that_waits_for_its_first_run_is_skipped_and_not_stale() -> None:
    waiting, missing = scheduled("waiting"), a_query("missing")
    store = ResultStore([waiting, missing])
    assert [str(item.state) for item in store.freshness(1e6)] == ["skipped(schedule)", "stale"]
    store.put([a_result(waiting, outcome="failed", error=GONE)], 1e6)
    assert [str(item.state) for item in store.freshness(1e6)] == ["failed(unavailable)", "stale"]
    assert str(next(iter(store.freshness(1e6 + 3 * DAY))).state) == "stale"


@pytest.mark.parametrize(
    ("schedule", "shortest"), [("15 3 * * *", DAY), ("0 0 * * 0", DAY), ("0 * * * *", 3600.0)]
)
def test_a_failing_query_is_tried_at_each_run(schedule: str, shortest: float) -> None:
    query = scheduled(schedule=schedule, interval=shortest, max_age=30 * DAY)
    assert query.schedule is not None
    breaker, now = CircuitBreaker(0.5), 0.0
    for _ in range(4 * FAILURES_BEFORE_A_BREAK):
        assert breaker.check(query, now, None) is None
        now += 10.0
        breaker.record(a_result(query, outcome="failed", error=REJECTED, duration=10.0), now)
        now += query.schedule.distances.shortest - 10.0

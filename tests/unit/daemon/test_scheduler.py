"""The daemon runs every tick at its time, in sequence, until it is stopped."""

from __future__ import annotations

import logging
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.retry import RETRY, RetryConfig
from poller.model.tick import Tick
from tests.bed.definitions import a_query, a_result
from tests.bed.pollable import FunctionTarget
from tests.bed.process import eventually

GONE = PollError("unavailable", "connection refused")
GONE.unsent = GONE.server_wide = True
Act = Callable[[Sequence[QueryDefinition]], Sequence[PollResult]]


@dataclass(frozen=True)
class Run:
    queries: tuple[str, ...]
    start: float
    end: float


def good(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
    return [a_result(query) for query in queries]


def lost(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
    return [a_result(query, outcome="failed", error=GONE) for query in queries]


class Bed:
    """A poll function that records its runs and calls a function of the test."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.begun = 0
        self.reports = 0
        self.target = FunctionTarget(self.poll)
        self.interrupted = threading.Event()
        self.act: Act = good
        self.retry = RETRY
        self.daemon: PollScheduler | None = None

    def start(self, *ticks: Tick) -> PollScheduler:
        self.daemon = PollScheduler(
            QueueConfig(retry=self.retry), on_first_polls=self.first_polls, spacing=math.inf
        )
        self.target.put_in(self.daemon, *ticks)
        self.daemon.start()
        return self.daemon

    @property
    def overruns(self) -> list[str]:
        return self.target.overruns

    @property
    def rested(self) -> list[float]:
        return self.target.rested

    def first_polls(self) -> None:
        self.reports += 1

    def poll(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        self.begun += 1
        start = time.time()
        try:
            return self.act(queries)
        finally:
            self.runs.append(Run(tuple(query.name for query in queries), start, time.time()))

    def until_interrupted(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        assert self.interrupted.wait(30)
        return good(queries)

    def ran(self, count: int) -> bool:
        return eventually(lambda: len(self.runs) >= count)

    def stop(self, timeout: float = 20.0) -> bool:
        assert self.daemon is not None
        daemon, self.daemon = self.daemon, None
        return daemon.stop(self.interrupted.set, timeout)


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    before = set(threading.enumerate())
    yield bed
    if bed.daemon is not None:
        assert bed.stop()
    assert eventually(lambda: set(threading.enumerate()) <= before), "a thread remains"


def tick(name: str = "t", interval: float = 86400.0, offset: float = 0.0) -> Tick:
    return Tick(name, (a_query(name),), interval, offset)


def test_it_reports_the_next_run_of_each_query(bed: Bed) -> None:
    now = time.time()
    together = Tick("b/1h", (a_query("b"), a_query("c")), 3600.0, 0.0)
    daemon = bed.start(tick("a", 3600.0), together)
    next_runs_by_query = daemon.next_runs()
    assert next_runs_by_query.keys() == {"a", "b", "c"}
    assert all(now - 1 < at < now + 5400 + 60 for at in next_runs_by_query.values())


def test_every_tick_runs_immediately_in_the_order_of_the_query_files(bed: Bed) -> None:
    names = ["d", "a", "c", "b"]
    bed.start(*[tick(name) for name in names])
    assert bed.ran(4)
    assert [run.queries for run in bed.runs] == [(name,) for name in names]
    assert eventually(lambda: bed.reports == 2)
    assert bed.stop()
    assert bed.reports == 2, "a push after the first tick and after the last, for any number of ticks"


@pytest.mark.slow
def test_later_runs_are_at_the_offset_of_the_interval(bed: Bed) -> None:
    bed.start(tick(interval=1.0, offset=0.4))
    assert bed.ran(4)
    # A loaded machine may be late but never early, and the delay differs between runs.
    later = [(run.start - 0.4) % 1.0 for run in bed.runs[1:]]
    assert min(later) < 0.5
    assert bed.reports == 1


def test_a_day_long_tick_is_not_polled_twice_at_start(bed: Bed) -> None:
    bed.start(tick(interval=86400.0), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("beat",) for run in bed.runs) >= 3)
    assert sum(run.queries == ("t",) for run in bed.runs) == 1


def test_an_overrun_is_skipped_counted_and_logged(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="poller.daemon.scheduler")
    bed.act = lambda queries: good(queries) if bed.begun == 1 else bed.until_interrupted(queries)
    bed.start(tick(interval=0.25))
    assert eventually(lambda: len(bed.overruns) >= 2)
    assert bed.begun == 2, "a tick must not overlap itself"
    assert set(bed.overruns) == {"t"}
    assert "tick t skipped: the previous one is still running" in [
        record.getMessage() for record in caplog.records
    ]


@pytest.mark.slow
def test_an_overrun_after_a_timely_run_is_a_warning_again(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="poller.daemon.scheduler")
    released = threading.Event()
    before: list[int] = []

    def act(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        if bed.begun == 2:
            assert released.wait(30)
        elif bed.begun == 4:
            before.append(len(bed.overruns))
            return bed.until_interrupted(queries)
        return good(queries)

    bed.act = act
    bed.start(tick(interval=1.0))
    assert eventually(lambda: len(bed.overruns) >= 2)
    released.set()
    assert eventually(lambda: bool(before) and len(bed.overruns) > before[0])
    levels = [record.levelname for record in caplog.records if "is still running" in record.getMessage()]
    assert levels[: before[0] + 1] == ["WARNING", *["DEBUG"] * (before[0] - 1), "WARNING"]


def test_two_ticks_never_run_at_the_same_time(bed: Bed) -> None:
    def slow(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        time.sleep(0.1)
        return good(queries)

    bed.act = slow
    bed.start(tick("a", interval=0.3), tick("b", interval=0.3))
    assert bed.ran(6)
    runs = sorted(bed.runs, key=lambda run: run.start)
    assert all(first.end <= second.start for first, second in pairwise(runs))


@pytest.mark.slow
def test_missed_runs_are_replaced_by_a_single_run(bed: Bed) -> None:
    released = threading.Event()
    bed.act = lambda queries: (released.wait(20) and good(queries)) or good(queries)
    bed.start(tick("a", interval=1.0), tick("b", interval=1.0))
    assert eventually(lambda: len(bed.overruns) >= 4)
    missed, before = len(bed.overruns), time.time()
    released.set()
    assert bed.ran(4)
    next_due = math.floor(before) + 1
    caught_up = [run for run in bed.runs if run.start < next_due]
    assert missed >= 4
    assert len(caught_up) <= 4, "the first runs and at most one more run of each"


@pytest.mark.slow
def test_a_tick_without_a_server_is_retried_with_exponential_backoff(bed: Bed) -> None:
    bed.retry = RetryConfig(0.2, 60.0)
    bed.act = lost
    bed.start(tick())
    assert bed.ran(4)
    gaps = [second.start - first.end for first, second in pairwise(bed.runs)]
    assert all(gap >= least for gap, least in zip(gaps, (0.19, 0.39, 0.79, 1.59, 3.19), strict=False)), gaps


def test_a_success_ends_the_retries_and_resets_the_backoff(bed: Bed) -> None:
    bed.retry = RetryConfig(0.2, 60.0)
    bed.act = lambda queries: lost(queries) if bed.begun < 4 else good(queries)
    daemon = bed.start(tick(), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("t",) for run in bed.runs) >= 1)
    assert eventually(lambda: bed.begun >= 6)
    assert eventually(lambda: daemon._queues.error("") is None)  # noqa: SLF001 - not observable before the next outage


@pytest.mark.slow
def test_a_tick_without_a_server_keeps_its_regular_runs(bed: Bed) -> None:
    bed.act = lost
    bed.retry = RetryConfig(3600.0, 3600.0)
    bed.start(tick(interval=0.5))
    assert bed.ran(5)
    assert bed.target.failed == []
    assert bed.overruns == [], "a tick that waits for its server is not late by itself"


def test_a_failure_of_a_query_alone_is_not_retried(bed: Bed) -> None:
    refused = PollError("rejected", "no", sqlstate="42501")
    bed.retry = RetryConfig(0.1, 60.0)
    bed.act = lambda queries: [a_result(query, outcome="failed", error=refused) for query in queries]
    bed.start(tick(), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("beat",) for run in bed.runs) >= 4)
    assert sum(run.queries == ("t",) for run in bed.runs) == 1


def test_a_query_that_kills_its_session_waits_for_its_interval(bed: Bed) -> None:
    """The queries themselves may have caused the loss of the connection: nothing is retried soon."""
    killed = PollError("unavailable", "server closed the connection unexpectedly")
    bed.retry = RetryConfig(0.1, 60.0)
    bed.act = lambda queries: [a_result(query, outcome="failed", error=killed) for query in queries]
    bed.start(tick(), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("beat",) for run in bed.runs) >= 4)
    assert sum(run.queries == ("t",) for run in bed.runs) == 1


def test_the_idle_callback_receives_the_time_until_the_next_tick(bed: Bed) -> None:
    bed.start(Tick("day", (a_query(),), 86400.0, (time.time() + 50_000) % 86400))
    assert eventually(lambda: bool(bed.rested))
    assert bed.rested[0] == pytest.approx(50_000, abs=60)


def test_a_defect_in_a_tick_is_logged_and_the_others_continue(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        if queries[0].name == "bad":
            raise RuntimeError("a defect")
        return good(queries)

    bed.act = broken
    bed.start(tick("bad", interval=0.25), tick("well", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("bad",) for run in bed.runs) >= 2)
    assert eventually(lambda: sum(run.queries == ("well",) for run in bed.runs) >= 2)
    logged = [record for record in caplog.records if record.name == "poller.daemon.scheduler"]
    assert "failed because of a defect of the poller" in logged[0].getMessage()
    assert logged[0].exc_info is not None
    assert bed.reports == 2


def test_stop_interrupts_the_running_tick_and_starts_no_other(bed: Bed) -> None:
    bed.act = bed.until_interrupted
    bed.start(tick("a", interval=0.25), tick("b", interval=0.25))
    assert eventually(lambda: bed.begun == 1)
    assert bed.stop(), "the worker must end"
    assert bed.interrupted.is_set()
    time.sleep(0.5)  # longer than the interval
    assert [run.queries for run in bed.runs] == [("a",)], "b was waiting and must not run"
    assert bed.rested == []
    assert bed.reports == 0


def test_stop_reports_a_worker_that_does_not_end(bed: Bed) -> None:
    stuck = threading.Event()
    bed.act = lambda queries: (stuck.wait(30) and good(queries)) or good(queries)
    bed.start(tick())
    assert eventually(lambda: bed.begun == 1)
    assert not bed.stop(timeout=0.2)
    stuck.set()
    assert bed.ran(1)


def test_stop_of_an_idle_daemon_succeeds(bed: Bed) -> None:
    bed.start(tick())
    assert bed.ran(1)
    assert bed.stop()


@pytest.mark.slow
def test_many_targets_of_unavailable_servers_do_not_block_the_scheduler() -> None:
    """Failures are planned again while other ticks become due: no thread waits for another for ever."""
    daemon = PollScheduler(QueueConfig(workers=8, retry=RetryConfig(0.01, 0.02)))
    targets = [FunctionTarget(lost, f"t{number}", f"s{number % 10}") for number in range(60)]
    runs: list[float] = []

    def well(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        runs.append(time.monotonic())
        return good(queries)

    targets.append(FunctionTarget(well, "well", "other"))
    for target in targets:
        target.put_in(daemon, tick(interval=0.1))
    daemon.start()
    try:
        assert eventually(lambda: len(runs) >= 20)
        assert any(target.failed for target in targets), "some ticks failed without a try"
    finally:
        assert daemon.stop(lambda: None, 30.0)


class BrokenTarget(FunctionTarget):
    """A target whose defects are outside its polls."""

    def fail(self, queries: Sequence[QueryDefinition], error: PollError) -> None:
        raise RuntimeError(f"a defect with {queries} and {error}")

    def rest(self, seconds: float) -> None:
        raise RuntimeError(f"a defect before {seconds}")


def test_a_defect_of_one_target_does_not_stop_the_others_of_its_server() -> None:
    daemon = PollScheduler(QueueConfig(retry=RetryConfig(0.05, 0.1)))
    down = True
    runs: list[str] = []

    def of(name: str) -> Act:
        def poll(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
            runs.append(name)
            return lost(queries) if down else good(queries)

        return poll

    for target in (BrokenTarget(of("broken"), "broken"), FunctionTarget(of("well"), "well")):
        target.put_in(daemon, tick(interval=0.2))
    daemon.start()
    try:
        assert eventually(lambda: len(runs) >= 4)
        down = False
        count = runs.count("well")
        assert eventually(lambda: runs.count("well") >= count + 3)
        assert eventually(lambda: runs.count("broken") >= 3)
    finally:
        assert daemon.stop(lambda: None, 30.0)


def test_the_only_target_of_a_server_closes_its_connection_when_a_second_one_is_added() -> None:
    daemon = PollScheduler(QueueConfig())
    first, elsewhere = FunctionTarget(good, "first"), FunctionTarget(good, "elsewhere", "other")
    for target in (first, elsewhere):
        target.put_in(daemon, tick(interval=3600.0))
    daemon.start()
    try:
        assert eventually(lambda: len(first.rested) == len(elsewhere.rested) == 1)
        assert first.rested != [math.inf], "it may keep its connection until its next tick"
        FunctionTarget(good, "second").put_in(daemon, tick(interval=3600.0))
        assert first.rested[1:] == [math.inf]
        assert len(elsewhere.rested) == 1
    finally:
        assert daemon.stop(lambda: None, 30.0)


def test_a_target_follows_its_connection_string_from_an_unavailable_server_to_another() -> None:
    daemon = PollScheduler(QueueConfig(retry=RetryConfig(3600.0, 3600.0)))
    runs: list[str] = []

    def poll(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        runs.append(moving.on)
        return lost(queries) if moving.on == "old" else good(queries)

    moving = FunctionTarget(poll, "moving", "old")
    for target in (moving, FunctionTarget(lost, "other", "old")):
        target.put_in(daemon, tick(interval=0.2))
    daemon.start()
    try:
        assert eventually(lambda: bool(moving.failed) or runs == ["old"])
        moving.on = "new"
        assert eventually(lambda: runs.count("new") >= 2), "although the old server is tried only in an hour"
    finally:
        assert daemon.stop(lambda: None, 30.0)


@pytest.mark.slow
def test_a_target_that_is_added_again_during_its_turn_loses_no_first_poll() -> None:
    """As after a reload, or when a process leads again; threads are switched as often as possible."""
    daemon, number, interval = (
        PollScheduler(QueueConfig(workers=4)),
        random.Random(1),
        sys.getswitchinterval(),
    )
    sys.setswitchinterval(1e-6)
    daemon.start()
    try:
        for _ in range(500):
            begun, moments = threading.Event(), [number.random() * 0.0008 for _ in range(2)]

            def poll(
                queries: Sequence[QueryDefinition], begun: threading.Event = begun, pause: float = moments[0]
            ) -> Sequence[PollResult]:
                begun.set()
                time.sleep(pause)
                return good(queries)

            FunctionTarget(poll, "again").put_in(daemon, tick(interval=3600.0))
            assert begun.wait(60.0)
            daemon.remove("again")
            time.sleep(moments[1])
    finally:
        sys.setswitchinterval(interval)
        assert daemon.stop(lambda: None, 30.0)


def test_the_removal_of_a_target_with_fewer_connections_lets_others_of_its_server_begin() -> None:
    daemon, end, runs = PollScheduler(QueueConfig(workers=4)), threading.Event(), list[str]()

    def of(name: str) -> Act:
        def poll(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
            runs.append(name)
            end.wait()
            return good(queries)

        return poll

    daemon.start()
    daemon.replace(FunctionTarget(of("few"), "few", connections=1), [tick(interval=3600.0)], ())
    for name in ("first", "second"):
        FunctionTarget(of(name), name, connections=2).put_in(daemon, tick(interval=3600.0))
    try:
        assert eventually(lambda: runs == ["first"])
        assert daemon.waiting().targets == 1
        daemon.remove("few")
        assert eventually(lambda: sorted(runs) == ["first", "second"])
    finally:
        end.set()
        assert daemon.stop(lambda: None, 30.0)

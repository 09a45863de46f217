"""The daemon runs every tick at its time, one after the other, until it is told to stop."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from poller.daemon.scheduler import RETRY, PollScheduler
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.retry import RetryConfig
from poller.model.tick import Tick
from tests.bed.definitions import a_query, a_result
from tests.bed.process import eventually

GONE = PollError("unavailable", "connection refused")
GONE.unsent = True
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
    """A poll function that records its runs and does what it is told to."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.begun = 0
        self.rested: list[float] = []
        self.overruns: list[str] = []
        self.reports = 0
        self.interrupted = threading.Event()
        self.act: Act = good
        self.retry = RETRY
        self.daemon: PollScheduler | None = None

    def start(self, *ticks: Tick) -> PollScheduler:
        self.daemon = PollScheduler(
            ticks,
            self.poll,
            rest=self.rested.append,
            on_overrun=self.overruns.append,
            on_first_polls=self.first_polls,
            spacing=math.inf,
            retry=self.retry,
        )
        self.daemon.start()
        return self.daemon

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
    assert eventually(lambda: set(threading.enumerate()) <= before), "no thread is left"


def tick(name: str = "t", interval: float = 86400.0, offset: float = 0.0) -> Tick:
    return Tick(name, (a_query(name),), interval, offset)


def test_it_tells_when_each_query_is_polled_next(bed: Bed) -> None:
    now = time.time()
    together = Tick("b/1h", (a_query("b"), a_query("c")), 3600.0, 0.0)
    daemon = bed.start(tick("a", 3600.0), together)
    told = daemon.next_runs()
    assert told.keys() == {"a", "b", "c"}
    assert all(now - 1 < at < now + 5400 + 60 for at in told.values())


def test_every_tick_runs_at_once_in_the_order_of_the_query_files(bed: Bed) -> None:
    names = ["d", "a", "c", "b"]
    bed.start(*[tick(name) for name in names])
    assert bed.ran(4)
    assert [run.queries for run in bed.runs] == [(name,) for name in names]
    assert eventually(lambda: bed.reports == 2)
    assert bed.stop()
    assert bed.reports == 2, "a push after the first and one after the last, however many ticks there are"


def test_later_runs_are_at_the_offset_of_the_interval(bed: Bed) -> None:
    bed.start(tick(interval=1.0, offset=0.4))
    assert bed.ran(4)
    # A loaded machine may be late, never early; and over several runs it is late by different amounts.
    later = [(run.start - 0.4) % 1.0 for run in bed.runs[1:]]
    assert min(later) < 0.5
    assert bed.reports == 1


def test_a_day_long_tick_is_not_polled_twice_at_start(bed: Bed) -> None:
    bed.start(tick(interval=86400.0), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("beat",) for run in bed.runs) >= 3)
    assert sum(run.queries == ("t",) for run in bed.runs) == 1


def test_a_tick_that_still_runs_is_left_out_counted_and_said(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="poller.daemon.scheduler")
    bed.act = lambda queries: good(queries) if bed.begun == 1 else bed.until_interrupted(queries)
    bed.start(tick(interval=0.25))
    assert eventually(lambda: len(bed.overruns) >= 2)
    assert bed.begun == 2, "it does not overlap itself"
    assert set(bed.overruns) == {"t"}
    assert "tick t skipped: the previous one is still running" in [
        record.getMessage() for record in caplog.records
    ]


def test_an_overrun_after_a_run_that_kept_up_is_a_warning_again(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_missed_runs_are_made_up_by_one(bed: Bed) -> None:
    released = threading.Event()
    bed.act = lambda queries: (released.wait(20) and good(queries)) or good(queries)
    bed.start(tick("a", interval=1.0), tick("b", interval=1.0))
    assert eventually(lambda: len(bed.overruns) >= 4)
    missed, before = len(bed.overruns), time.time()
    released.set()
    assert bed.ran(4)
    caught_up = [run for run in bed.runs if run.start <= before + 0.5]
    assert missed >= 4
    assert len(caught_up) <= 4, "the first runs and at most one more of each"


def test_a_tick_that_found_no_server_is_tried_again_at_doubling_distances(bed: Bed) -> None:
    bed.retry = RetryConfig(0.2, 60.0)
    bed.act = lost
    bed.start(tick())
    assert bed.ran(4)
    gaps = [second.start - first.end for first, second in pairwise(bed.runs)]
    assert [gap >= least for gap, least in zip(gaps, (0.19, 0.39, 0.79), strict=False)] == [True] * 3
    assert len(bed.runs) == 4


def test_a_success_ends_the_retries_and_begins_the_distances_anew(bed: Bed) -> None:
    bed.retry = RetryConfig(0.2, 60.0)
    bed.act = lambda queries: lost(queries) if bed.begun < 4 else good(queries)
    daemon = bed.start(tick(), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("t",) for run in bed.runs) >= 1)
    assert eventually(lambda: bed.begun >= 6)
    assert eventually(lambda: daemon._failures == {})  # noqa: SLF001 - nothing else shows it before the next outage


def test_an_outage_of_days_does_not_break_the_retries(bed: Bed) -> None:
    bed.act = lost
    daemon = PollScheduler([tick()], bed.poll, rest=bed.rested.append)
    daemon._failures["t"] = 5000  # noqa: SLF001 - days of waiting, at a minute each
    bed.daemon = daemon
    daemon.start()
    assert eventually(lambda: bool(bed.rested)), "the run came to its end"
    assert 0 < bed.rested[0] <= RETRY.longest_pause


def test_a_retry_never_comes_after_the_regular_run(bed: Bed) -> None:
    retries: list[str] = []

    def look(queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        jobs = daemon._timer._scheduler.get_jobs()  # noqa: SLF001 - a job that is not run shows nowhere else
        retries.extend(job.id for job in jobs if job.id.endswith("again"))
        return lost(queries)

    # Due 0.6 s after the start, and then every second: always before a retry, which is a second away.
    daemon = PollScheduler([tick(interval=1.0, offset=(time.time() + 0.6) % 1.0)], bed.poll)
    bed.daemon, bed.act = daemon, look
    daemon.start()
    assert bed.ran(4)
    assert retries == []


def test_a_failure_of_the_query_alone_is_not_tried_again(bed: Bed) -> None:
    refused = PollError("rejected", "no", sqlstate="42501")
    bed.retry = RetryConfig(0.1, 60.0)
    bed.act = lambda queries: [a_result(query, outcome="failed", error=refused) for query in queries]
    bed.start(tick(), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("beat",) for run in bed.runs) >= 4)
    assert sum(run.queries == ("t",) for run in bed.runs) == 1


def test_a_query_that_kills_its_session_waits_for_its_interval(bed: Bed) -> None:
    """What was lost after queries were sent may be their own doing: nothing is tried again soon."""
    killed = PollError("unavailable", "server closed the connection unexpectedly")
    bed.retry = RetryConfig(0.1, 60.0)
    bed.act = lambda queries: [a_result(query, outcome="failed", error=killed) for query in queries]
    bed.start(tick(), tick("beat", interval=0.25))
    assert eventually(lambda: sum(run.queries == ("beat",) for run in bed.runs) >= 4)
    assert sum(run.queries == ("t",) for run in bed.runs) == 1


def test_rest_is_told_how_long_until_the_next_tick(bed: Bed) -> None:
    bed.start(Tick("day", (a_query(),), 86400.0, (time.time() + 50_000) % 86400))
    assert eventually(lambda: bool(bed.rested))
    assert bed.rested[0] == pytest.approx(50_000, abs=60)


def test_a_defect_in_one_tick_is_said_and_the_others_go_on(
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
    said = [record for record in caplog.records if record.name == "poller.daemon.scheduler"]
    assert "ended in a defect of the poller" in said[0].getMessage()
    assert said[0].exc_info is not None
    assert bed.reports == 2


def test_stop_interrupts_what_runs_and_starts_nothing_any_more(bed: Bed) -> None:
    bed.act = bed.until_interrupted
    bed.start(tick("a", interval=0.25), tick("b", interval=0.25))
    assert eventually(lambda: bed.begun == 1)
    assert bed.stop(), "the worker came to rest"
    assert bed.interrupted.is_set()
    time.sleep(0.5)  # longer than the interval
    assert [run.queries for run in bed.runs] == [("a",)], "b was waiting for its turn, and never got it"
    assert bed.rested == []
    assert bed.reports == 0


def test_stop_says_when_the_worker_does_not_come_to_rest(bed: Bed) -> None:
    stuck = threading.Event()
    bed.act = lambda queries: (stuck.wait(30) and good(queries)) or good(queries)
    bed.start(tick())
    assert eventually(lambda: bed.begun == 1)
    assert not bed.stop(timeout=0.2)
    stuck.set()
    assert bed.ran(1)


def test_stop_of_an_idle_daemon_is_at_rest(bed: Bed) -> None:
    bed.start(tick())
    assert bed.ran(1)
    assert bed.stop()

"""Ticks are replaced at any time: no first poll is lost, no removed query runs, no other tick is moved."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_ADDED, EVENT_JOB_REMOVED, EVENT_JOB_SUBMITTED, JobEvent

from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.timer import Entry
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.tick import Tick
from tests.bed.definitions import a_query, a_result
from tests.bed.pollable import FunctionTarget
from tests.bed.process import eventually

GONE = PollError("unavailable", "connection refused")
GONE.unsent = GONE.server_wide = True
DAY = 86400.0


def tick(name: str, *queries: str, interval: float = DAY) -> Tick:
    """Return a tick with these queries; the SQL of each contains its name."""
    return Tick(name, tuple(a_query(query, f"SELECT '{query}'") for query in queries), interval, 0.4)


def job_of(tick: str) -> str:
    return f"\0{tick}"


class Bed:
    """A daemon that records its runs in order in one list."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.act: Callable[[], object] = lambda: None
        self.reports = 0
        self.events: list[JobEvent] = []
        self.error: PollError | None = None
        self.daemon: PollScheduler | None = None
        self.target = FunctionTarget(self.poll)

    def start(self, *ticks: Tick) -> PollScheduler:
        self.daemon = PollScheduler(
            QueueConfig(), on_first_polls=self.first_polls, spacing=math.inf, patience=900.0
        )
        self.daemon._timer._scheduler.add_listener(  # noqa: SLF001 - not observable otherwise
            self.events.append, EVENT_JOB_ADDED | EVENT_JOB_REMOVED | EVENT_JOB_SUBMITTED
        )
        self.target.put_in(self.daemon, *ticks)
        self.daemon.start()
        return self.daemon

    def replace(self, *ticks: Tick, fresh: set[str]) -> None:
        assert self.daemon is not None
        self.daemon.replace(self.target, ticks, fresh)
        self.log.append("replaced")

    def first_polls(self) -> None:
        self.reports += 1

    def poll(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        named = "+".join(query.name for query in queries)
        self.log.append(f"begin {named}")
        self.act()
        self.log.append(f"end {named}")
        if self.error is not None:
            return [a_result(query, outcome="failed", error=self.error) for query in queries]
        return [a_result(query) for query in queries]

    def happened(self, code: int, job: str | None = None) -> int:
        ids = None if job is None else job_of(job)
        return sum(event.code == code and ids in (None, event.job_id) for event in list(self.events))

    def next_run(self, tick: str) -> object:
        assert self.daemon is not None
        return self.daemon._timer._scheduler.get_job(job_of(tick)).next_run_time  # noqa: SLF001 - the same

    def ran(self, *queries: str) -> bool:
        return eventually(lambda: f"end {'+'.join(queries)}" in self.log)


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    yield bed
    if bed.daemon is not None:
        assert bed.daemon.stop(lambda: None, 30.0)


def test_an_existing_tick_keeps_its_next_run_and_only_its_new_queries_are_polled_immediately(
    bed: Bed,
) -> None:
    bed.start(tick("t", "a", "b"))
    assert bed.ran("a", "b")
    before = bed.next_run("t")
    bed.replace(tick("t", "a", "b", "c"), fresh={"c"})
    assert bed.ran("c")
    assert [line for line in bed.log if line != "replaced"] == ["begin a+b", "end a+b", "begin c", "end c"]
    assert bed.next_run("t") == before
    assert bed.happened(EVENT_JOB_REMOVED, "t") == 0
    assert eventually(lambda: bed.reports == 2), "a push each time that there are new values"


@pytest.mark.slow
def test_a_removed_tick_runs_no_more_and_a_new_tick_runs_immediately_and_then_on_time(bed: Bed) -> None:
    daemon = bed.start(tick("old", "a", interval=1.0))
    assert bed.ran("a")
    assert eventually(lambda: bed.log[-1] == "end a")
    bed.replace(tick("new", "b", interval=1.0), fresh={"b"})
    assert eventually(lambda: bed.log.count("end b") >= 3)
    assert not [line for line in bed.log[bed.log.index("replaced") :] if line == "begin a"]
    assert daemon.last_runs().keys() == {("", "new")}


def test_a_replacement_does_not_wait_for_the_tick_in_progress(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    bed.replace(tick("t", "a", "b"), fresh={"b"})
    assert bed.log == ["begin a", "replaced"]
    release.set()
    assert bed.ran("b")
    assert bed.log == ["begin a", "replaced", "end a", "begin b", "end b"]


@pytest.mark.slow
def test_a_tick_that_waits_during_a_replacement_runs_with_the_new_queries(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60) if bed.log[-1] == "begin x" else None
    bed.start(tick("busy", "x"), tick("t", "a", interval=1.0))
    assert eventually(lambda: bed.log == ["begin x"])
    bed.replace(tick("busy", "x"), tick("u", "y"), tick("t", "b", "c", interval=1.0), fresh={"b", "c", "y"})
    release.set()
    assert bed.ran("b", "c")
    assert bed.ran("y")
    assert "begin a" not in bed.log


def test_several_replacements_in_a_row_lose_no_first_poll(bed: Bed) -> None:
    release = threading.Event()
    bed.start(tick("t", "a"))
    assert bed.ran("a")
    bed.act = lambda: release.wait(60)
    bed.replace(tick("t", "a", "b"), fresh={"b"})
    assert eventually(lambda: bed.log[-1] == "begin b")
    bed.replace(tick("t", "a", "b", "c"), fresh={"c"})
    bed.replace(tick("t", "b", "c", "d"), fresh={"d"})
    release.set()
    assert bed.ran("c", "d")


def test_a_query_that_is_removed_before_its_first_poll_is_not_polled(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    bed.replace(tick("t", "a"), tick("u", "b"), fresh={"b"})
    bed.replace(tick("t", "a", "c"), fresh={"c"})
    release.set()
    assert bed.ran("c")
    assert "begin b" not in bed.log
    assert eventually(lambda: bed.reports == 2), "no push waits for a removed query"


def test_the_last_first_poll_is_detected_after_a_query_has_moved_to_another_tick(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    bed.replace(tick("t", "a"), tick("u", "b", "c"), fresh={"b"})
    bed.replace(tick("t", "a", "d"), tick("u", "c"), tick("v", "b"), fresh={"d"})
    release.set()
    assert bed.ran("d")
    assert eventually(lambda: bed.reports == 2)


@pytest.mark.slow
def test_a_retry_survives_a_replacement_of_other_ticks_and_ends_with_its_own(bed: Bed) -> None:
    bed.error = GONE
    bed.start(tick("t", "a"), tick("gone", "b"))
    assert bed.ran("a")
    bed.replace(tick("t", "a", "c"), fresh={"c"})
    assert bed.ran("a", "c"), "the retry runs the whole tick with its current queries"
    assert not [line for line in bed.log[bed.log.index("replaced") :] if line == "begin b"]


def test_a_replacement_after_the_shutdown_starts_nothing(bed: Bed) -> None:
    daemon = bed.start(tick("t", "a"))
    assert bed.ran("a")
    bed.daemon = None
    assert daemon.stop(lambda: None, 30.0)
    daemon.replace(bed.target, [tick("u", "b")], {"b"})
    assert "begin b" not in bed.log


def test_it_is_ready_once_every_tick_has_run_with_any_result(bed: Bed) -> None:
    gates = [threading.Event(), threading.Event()]
    bed.act = lambda: gates[0 if bed.log[-1] == "begin a" else 1].wait(60)
    daemon = bed.start(tick("t", "a"), tick("u", "b"))
    gates[0].set()
    assert bed.ran("a")
    assert eventually(lambda: not daemon.ready)
    assert daemon.last_runs()[Entry("", "u")] == (tick("u", "b"), None)
    bed.error = GONE
    gates[1].set()
    assert eventually(lambda: daemon.ready)
    bed.replace(tick("v", "c"), fresh=set())
    assert daemon.ready, "a new tick does not make it unready"
    ended = daemon.last_runs()[Entry("", "v")]
    assert ended == (tick("v", "c"), None)


def test_the_other_ticks_of_an_unavailable_server_count_as_run(bed: Bed) -> None:
    bed.error = GONE
    daemon = bed.start(*[tick(f"t{number}", f"q{number}") for number in range(6)])
    assert eventually(lambda: daemon.ready)
    assert eventually(lambda: bed.target.failed == [(f"q{number}",) for number in range(1, 6)])


def test_an_endless_tick_is_reported_and_a_slow_tick_is_not(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    daemon = bed.start(tick("t", "a", interval=100.0))
    assert eventually(lambda: bed.log == ["begin a"])
    now = time.monotonic()
    assert daemon.stuck(now) is None
    assert daemon.stuck(now + 100.0 + 890.0) is None
    problem = daemon.stuck(now + 100.0 + 910.0)
    assert problem is not None
    assert problem.startswith("tick t runs for 16m5")
    release.set()
    assert bed.ran("a")
    assert eventually(lambda: daemon.stuck(time.monotonic() + 10_000) is None)


@pytest.mark.slow
def test_a_scheduler_that_starts_no_job_is_reported_and_woken(bed: Bed) -> None:
    daemon = bed.start(tick("t", "a", interval=1.0))
    assert bed.ran("a")
    daemon._timer._scheduler.pause()  # noqa: SLF001 - starts no job, as if it were stuck
    assert eventually(lambda: daemon._timer.until_next() < -2.5)  # noqa: SLF001 - it is overdue by then
    now = time.monotonic()
    assert daemon.stuck(now) is None
    assert daemon.stuck(now + 59) is None
    assert daemon.stuck(now + 61) == "no tick was started for 1m1s"
    daemon._timer._scheduler.resume()  # noqa: SLF001
    assert eventually(lambda: daemon.stuck(now + 62) is None)


def test_a_scheduler_that_slept_through_a_change_of_the_clock_is_woken(bed: Bed) -> None:
    """It plans by the wall clock and waits by the monotonic clock."""
    daemon = bed.start(tick("t", "a"))
    assert bed.ran("a")
    job = daemon._timer._scheduler.get_job(job_of("t"))  # noqa: SLF001
    job._modify(next_run_time=datetime.now(UTC) - timedelta(minutes=5))  # noqa: SLF001
    # Without its own methods, like a change of the clock: those would wake it.
    daemon._timer._scheduler._jobstores["default"].update_job(job)  # noqa: SLF001
    assert daemon.stuck(time.monotonic()) is None
    assert eventually(lambda: bed.log.count("end a") == 2)


def test_a_tick_is_not_delayed_by_a_clock_that_is_set_back(bed: Bed) -> None:
    daemon = bed.start(tick("t", "a"), tick("u", "b"))
    assert bed.ran("b")
    planned, job = bed.next_run("u"), daemon._timer._scheduler.get_job(job_of("t"))  # noqa: SLF001
    job.modify(next_run_time=datetime.now(UTC) + timedelta(days=3))
    assert daemon.stuck(time.monotonic()) is None
    due = bed.next_run("t")
    assert isinstance(due, datetime)
    assert due - datetime.now(UTC) < timedelta(days=1.5)
    assert bed.next_run("u") == planned

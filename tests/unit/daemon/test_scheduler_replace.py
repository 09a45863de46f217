"""Ticks are replaced between two runs: no definitions are mixed, no run is lost, no other tick is moved."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_ADDED, EVENT_JOB_REMOVED, EVENT_JOB_SUBMITTED, JobEvent

from poller.daemon.scheduler import PollScheduler
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.tick import Tick
from tests.bed.definitions import a_query, a_result
from tests.bed.process import eventually

GONE = PollError("unavailable", "connection refused")
GONE.unsent = True
DAY = 86400.0


def tick(name: str, *queries: str, interval: float = DAY) -> Tick:
    """Return a tick with these queries; the SQL of each contains its name."""
    return Tick(name, tuple(a_query(query, f"SELECT '{query}'") for query in queries), interval, 0.4)


class Bed:
    """A daemon that records its runs in order in one list."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.act: Callable[[], object] = lambda: None
        self.reports = 0
        self.events: list[JobEvent] = []
        self.error: PollError | None = None
        self.daemon: PollScheduler | None = None

    def start(self, *ticks: Tick) -> PollScheduler:
        self.daemon = PollScheduler(ticks, self.poll, on_first_polls=self.first_polls, spacing=math.inf)
        self.daemon._timer._scheduler.add_listener(  # noqa: SLF001 - not observable otherwise
            self.events.append, EVENT_JOB_ADDED | EVENT_JOB_REMOVED | EVENT_JOB_SUBMITTED
        )
        self.daemon.start()
        return self.daemon

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
        return sum(event.code == code and job in (None, event.job_id) for event in list(self.events))

    def next_run(self, tick: str) -> object:
        assert self.daemon is not None
        return self.daemon._timer._scheduler.get_job(tick).next_run_time  # noqa: SLF001 - the same

    def ran(self, *queries: str) -> bool:
        return eventually(lambda: f"end {'+'.join(queries)}" in self.log)


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    yield bed
    if bed.daemon is not None:
        assert bed.daemon.stop(lambda: None, 30.0)


class Swap(threading.Thread):
    """A swap that is requested in another thread, because the call blocks until it is done."""

    def __init__(self, bed: Bed, ticks: Sequence[Tick], fresh: set[str]) -> None:
        super().__init__(daemon=True)
        self.done: bool | None = None
        self._bed, self._ticks, self._fresh = bed, ticks, fresh
        before = bed.happened(EVENT_JOB_SUBMITTED)
        self.start()
        assert eventually(lambda: bed.happened(EVENT_JOB_SUBMITTED) > before), "it is in the worker's queue"

    def run(self) -> None:
        assert self._bed.daemon is not None
        self.done = self._bed.daemon.swap(self._ticks, self._fresh, lambda: self._bed.log.append("swap"))


def test_an_existing_tick_keeps_its_next_run_and_only_its_new_queries_are_polled_immediately(
    bed: Bed,
) -> None:
    daemon = bed.start(tick("t", "a", "b"))
    assert bed.ran("a", "b")
    before = bed.next_run("t")
    assert daemon.swap([tick("t", "a", "b", "c")], {"c"}, lambda: bed.log.append("swap"))
    assert bed.ran("c")
    assert bed.log == ["begin a+b", "end a+b", "swap", "begin c", "end c"]
    assert bed.next_run("t") == before
    assert bed.happened(EVENT_JOB_REMOVED, "t") == 0
    assert eventually(lambda: bed.reports == 2), "a push each time that there are new values"


@pytest.mark.slow
def test_a_removed_tick_runs_no_more_and_a_new_tick_runs_immediately_and_then_on_time(bed: Bed) -> None:
    daemon = bed.start(tick("old", "a", interval=1.0))
    assert bed.ran("a")
    assert daemon.swap([tick("new", "b", interval=1.0)], {"b"}, lambda: bed.log.append("swap"))
    assert eventually(lambda: bed.log.count("end b") >= 3)
    assert not [line for line in bed.log[bed.log.index("swap") :] if line.endswith(" a")]
    assert daemon.last_runs().keys() == {"new"}


def test_a_swap_waits_for_the_tick_under_way(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    swap = Swap(bed, [tick("t", "a", "b")], {"b"})
    assert bed.log == ["begin a"]
    release.set()
    assert bed.ran("b")
    swap.join(60)
    assert swap.done
    assert bed.log == ["begin a", "end a", "swap", "begin b", "end b"]


@pytest.mark.slow
def test_a_tick_in_the_queue_after_a_swap_runs_with_the_new_queries(bed: Bed) -> None:
    release = threading.Event()
    bed.start(tick("busy", "x"), tick("t", "a", interval=1.0))
    assert bed.ran("a")
    bed.act = lambda: release.wait(60)
    assert eventually(lambda: bed.log[-1].startswith("begin"))
    (running,) = {bed.log[-1]}
    assert running == "begin a"
    swap = Swap(bed, [tick("busy", "x"), tick("u", "y"), tick("t", "b", "c", interval=1.0)], {"b", "y"})
    release.set()
    assert bed.ran("b", "c")
    swap.join(60)
    after = bed.log[bed.log.index("swap") :]
    assert "begin a" not in after
    assert bed.ran("y")


def test_several_swaps_in_a_row_lose_no_first_poll(bed: Bed) -> None:
    release = threading.Event()
    daemon = bed.start(tick("t", "a"))
    assert bed.ran("a")
    bed.act = lambda: release.wait(60)
    assert daemon.swap([tick("t", "a", "b")], {"b"}, lambda: None)
    assert eventually(lambda: bed.log[-1] == "begin b")
    first = Swap(bed, [tick("t", "a", "b", "c")], {"c"})
    second = Swap(bed, [tick("t", "b", "c", "d")], {"d"})
    release.set()
    assert eventually(lambda: {"c", "d"} <= set("+".join(bed.log).replace("end ", "+").split("+")))
    for swap in (first, second):
        swap.join(60)
        assert swap.done


def test_a_query_that_is_removed_before_its_first_poll_is_not_polled(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    swaps = [Swap(bed, [tick("t", "a"), tick("u", "b")], {"b"}), Swap(bed, [tick("t", "a", "c")], {"c"})]
    release.set()
    assert bed.ran("c")
    for swap in swaps:
        swap.join(60)
    assert "begin b" not in bed.log
    assert eventually(lambda: bed.reports == 2), "no push waits for a removed query"


def test_the_last_first_poll_is_detected_after_a_query_has_moved_to_another_tick(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    swaps = [
        Swap(bed, [tick("t", "a"), tick("u", "b", "c")], {"b"}),
        Swap(bed, [tick("t", "a", "d"), tick("u", "c"), tick("v", "b")], {"d"}),
    ]
    release.set()
    assert bed.ran("d")
    for swap in swaps:
        swap.join(60)
    assert eventually(lambda: bed.reports == 2)


@pytest.mark.slow
def test_a_retry_survives_a_swap_of_other_ticks_and_ends_with_its_own(bed: Bed) -> None:
    bed.error = GONE
    daemon = bed.start(tick("t", "a"), tick("gone", "b"))
    jobs = daemon._timer._scheduler.get_jobs  # noqa: SLF001 - a job that does not run is not observable
    assert eventually(lambda: sum(job.id.endswith("again") for job in jobs()) == 2)
    assert daemon.swap([tick("t", "a", "c")], {"c"}, lambda: bed.log.append("swap"))
    assert bed.ran("a", "c"), "the retry runs the whole tick with its current queries"
    assert not [line for line in bed.log[bed.log.index("swap") :] if line.endswith(" b")]


def test_after_a_failed_swap_the_daemon_continues_with_the_old_ticks(bed: Bed) -> None:
    def fail() -> None:
        raise TimeoutError("a defect")

    daemon = bed.start(tick("t", "a", interval=1.0))
    with pytest.raises(TimeoutError, match="a defect"):
        daemon.swap([tick("u", "b")], {"b"}, fail)
    count = bed.log.count("end a")
    assert eventually(lambda: bed.log.count("end a") > count)
    assert "begin b" not in bed.log


def test_a_swap_during_or_after_the_shutdown_has_no_effect(bed: Bed) -> None:
    release = threading.Event()
    bed.act = lambda: release.wait(60)
    daemon = bed.start(tick("t", "a"))
    assert eventually(lambda: bed.log == ["begin a"])
    swap = Swap(bed, [tick("u", "b")], {"b"})
    bed.daemon = None
    assert daemon.stop(release.set, 30.0)
    swap.join(60)
    assert swap.done is False
    assert daemon.swap([tick("u", "b")], {"b"}, lambda: bed.log.append("swap")) is False
    assert "swap" not in bed.log


def test_it_is_ready_once_every_tick_has_run_with_any_result(bed: Bed) -> None:
    gates = [threading.Event(), threading.Event()]
    bed.error = GONE
    bed.act = lambda: gates[0 if bed.log[-1] == "begin a" else 1].wait(60)
    daemon = bed.start(tick("t", "a"), tick("u", "b"))
    gates[0].set()
    assert bed.ran("a")
    assert eventually(lambda: not daemon.ready)
    assert daemon.last_runs()["u"] == (DAY, None)
    gates[1].set()
    assert eventually(lambda: daemon.ready)
    assert daemon.swap([tick("v", "c")], set(), lambda: None)
    assert daemon.ready, "a new tick does not make it unready"
    ended = daemon.last_runs()["v"]
    assert ended == (DAY, None)


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
    job = daemon._timer._scheduler.get_job("t")  # noqa: SLF001
    job._modify(next_run_time=datetime.now(UTC) - timedelta(minutes=5))  # noqa: SLF001
    # Without its own methods, like a change of the clock: those would wake it.
    daemon._timer._scheduler._jobstores["default"].update_job(job)  # noqa: SLF001
    assert daemon.stuck(time.monotonic()) is None
    assert eventually(lambda: bed.log.count("end a") == 2)


def test_a_tick_is_not_delayed_by_a_clock_that_is_set_back(bed: Bed) -> None:
    daemon = bed.start(tick("t", "a"), tick("u", "b"))
    assert bed.ran("b")
    planned, job = bed.next_run("u"), daemon._timer._scheduler.get_job("t")  # noqa: SLF001
    job.modify(next_run_time=datetime.now(UTC) + timedelta(days=3))
    assert daemon.stuck(time.monotonic()) is None
    due = bed.next_run("t")
    assert isinstance(due, datetime)
    assert due - datetime.now(UTC) < timedelta(days=1.5)
    assert bed.next_run("u") == planned

"""APScheduler timetable of all ticks, which calls a function whenever a tick is due."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from poller.daemon.cron_trigger import next_runs, to_trigger
from poller.model.tick import Tick

logger = logging.getLogger(__name__)

_CLOCK_MARGIN = 60.0
"""Seconds by which the clock may be set back without an effect on schedules: no run is repeated."""


class Entry(NamedTuple):
    """One tick of one target, by their names."""

    target: str
    tick: str


class Timer:
    """An APScheduler that calls short functions, one at a time; missed calls are combined into one."""

    def __init__(self, on_due: Callable[[Entry], None]) -> None:
        """Prepare; `on_due` is called with each due tick."""
        self._on_due = on_due
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            # Not on the scheduler's own thread, which holds its lock while it starts a job.
            executors={"default": ThreadPoolExecutor(1)},
            # The default misfire_grace_time silently skips a job that starts a second late.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Start no further job; a running job continues."""
        # If APScheduler shuts down while it submits a job, its thread fails with JobLookupError. While paused
        # it submits none, and `get_jobs` waits for a submission in progress.
        self._scheduler.pause()
        self._scheduler.get_jobs()
        self._scheduler.shutdown(wait=False)

    def enter(self, entry: Entry, tick: Tick, now: float) -> None:
        """Call `on_due` on the tick's schedule, or in every interval at its offset; `now` is since 1970."""
        self._scheduler.add_job(self._on_due, _trigger(tick, now), args=[entry], id=_id(entry))

    def leave(self, entry: Entry) -> None:
        """Remove a tick from the schedule."""
        with suppress(JobLookupError):
            self._scheduler.remove_job(_id(entry))

    def call(self, name: str, delay: float, act: Callable[..., object], *arguments: object) -> None:
        """Call `act` in `delay` seconds; a later request with the same `name` replaces the earlier one."""
        self._scheduler.add_job(
            act,
            "date",
            run_date=_utc(time.time()) + timedelta(seconds=delay),
            args=arguments,
            id=name,
            replace_existing=True,
            max_instances=10,  # a call may plan the next one while it runs
        )

    def next_run(self, entry: Entry) -> float | None:
        """Return the time of a tick's next regular run in seconds since 1970; None if it is not scheduled."""
        job = self._scheduler.get_job(_id(entry))
        return job.next_run_time.timestamp() if job and job.next_run_time else None

    def until_next(self) -> float:
        """Return the seconds until the next job is due, at most a day; negative if it is overdue."""
        due = [job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time]
        return min(due, default=_utc(time.time()) + timedelta(days=1)).timestamp() - time.time()

    def set_right(self, ticks: Iterable[tuple[Entry, Tick]], now: float) -> None:
        """Reschedule the `ticks` that are due too late because the clock was set back; `now` since 1970."""
        latest: dict[str, float] = {}
        """Latest possible time of the next run, by the name of a tick; many targets have the same ticks."""
        for entry, tick in ticks:
            if tick.name not in latest:
                latest[tick.name] = _latest(tick, now)
            job = self._scheduler.get_job(_id(entry))
            if job and job.next_run_time and job.next_run_time.timestamp() > latest[tick.name]:
                logger.warning("the clock was set back; tick %s is rescheduled", tick.name)
                with suppress(JobLookupError):  # the tick may have been removed just now
                    self._scheduler.reschedule_job(_id(entry), trigger=_trigger(tick, now))

    def wake(self) -> None:
        """Make the scheduler look for due jobs now.

        APScheduler plans by the wall clock but waits by the monotonic clock. So it would sleep too long after
        the clock was set forward or the machine was suspended.
        """
        self._scheduler.wakeup()


def _trigger(tick: Tick, now: float) -> BaseTrigger:
    if tick.schedule is not None:
        return to_trigger(tick.schedule)
    return IntervalTrigger(seconds=tick.interval, start_date=_utc(tick.first_due(now)), timezone=UTC)


def _latest(tick: Tick, now: float) -> float:
    """Return the latest possible time of a tick's next run, unless the clock was set back."""
    if tick.schedule is None:
        return now + 1.6 * tick.interval + 1.0  # `first_due` is at most one and a half intervals ahead
    return max(
        (run.timestamp() for run in next_runs(tick.schedule, now + _CLOCK_MARGIN, 1)), default=math.inf
    )


def _id(entry: Entry) -> str:
    return "\0".join(entry)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

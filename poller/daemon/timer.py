"""APScheduler timetable of all ticks, with one worker thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from poller.model.tick import Tick

logger = logging.getLogger(__name__)


class Timetable:
    """APScheduler with one worker, so that what is due at the same time follows one another.

    A tick that is still running, or still waits for the worker, when it is due again is left out; any number
    of missed runs makes one.
    """

    def __init__(self, run: Callable[[str], None], on_left_out: Callable[[str], None]) -> None:
        """Prepare; `run` is given the name of a tick that is due, `on_left_out` of one that is left out."""
        self._run = run
        self._on_left_out = on_left_out
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            # The defaults would drop a tick that starts a second late (misfire_grace_time) without a word.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._left_out, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Begin nothing any more; what runs goes on."""
        # Shut down while it hands out a job, APScheduler misses that job afterwards (JobLookupError in its
        # thread). Paused, it hands out none; the look at the jobs waits for the one in its hands.
        self._scheduler.pause()
        self._scheduler.get_jobs()
        self._scheduler.shutdown(wait=False)

    def enter(self, tick: Tick, now: float) -> None:
        """Run a tick in every interval, at its place in it; `now` is in seconds since 1970."""
        self._scheduler.add_job(
            self._run,
            "interval",
            seconds=tick.interval,
            start_date=_utc(tick.first_due(now)),
            args=[tick.name],
            id=tick.name,
        )

    def leave(self, name: str) -> None:
        """Run a tick no more, nor again."""
        for job in (name, _again(name)):
            with suppress(JobLookupError):
                self._scheduler.remove_job(job)

    def once(self, act: Callable[..., None], *arguments: object, number: int = 0) -> None:
        """Have the worker call `act` in its turn, now; of several, those of lower `number` first."""
        # A microsecond apart, added to the time as a datetime: two floats of today may round to the same one.
        # Without an id of ours: a run before may not be accounted for yet, and would be in the way of this.
        at = _utc(time.time()) + timedelta(microseconds=number)
        self._scheduler.add_job(act, "date", run_date=at, args=arguments)

    def again(self, name: str, at: float) -> None:
        """Run a tick once more `at` some seconds since 1970, unless its own time comes before."""
        regular = self._scheduler.get_job(name)
        if regular is None or at < regular.next_run_time.timestamp():
            self._scheduler.add_job(
                self._run, "date", run_date=_utc(at), args=[name], id=_again(name), replace_existing=True
            )

    def next_run(self, name: str) -> float | None:
        """When a tick runs next in seconds since 1970; None where it is not entered."""
        jobs = [self._scheduler.get_job(job) for job in (name, _again(name))]
        return min((job.next_run_time.timestamp() for job in jobs if job and job.next_run_time), default=None)

    def until_next(self) -> float:
        """Seconds until something is due, a day at most; below 0 where it should have begun by now."""
        due = [job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time]
        return min(due, default=_utc(time.time()) + timedelta(days=1)).timestamp() - time.time()

    def set_right(self, ticks: Iterable[Tick], now: float) -> None:
        """Give those of `ticks` a new time that are further away than they can be: the clock was set back."""
        for tick in ticks:
            job = self._scheduler.get_job(tick.name)
            # `first_due` is at most one and a half intervals ahead.
            if job and job.next_run_time and job.next_run_time.timestamp() - now > 1.6 * tick.interval + 1.0:
                logger.warning("the clock was set back; tick %s is planned anew", tick.name)
                with suppress(JobLookupError):  # it has just been left
                    self._scheduler.reschedule_job(
                        tick.name,
                        trigger="interval",
                        seconds=tick.interval,
                        start_date=_utc(tick.first_due(now)),
                    )

    def wake(self) -> None:
        """Look at what is due now.

        Where the clock was set forward, or the machine slept, APScheduler would wait on: it plans by another
        clock than it waits by.
        """
        self._scheduler.wakeup()

    def _left_out(self, event: JobEvent) -> None:
        if self._scheduler.get_job(event.job_id) is not None:
            self._on_left_out(event.job_id)


def _again(tick: str) -> str:
    return f"{tick} again"  # no tick's own name: those end in a duration


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

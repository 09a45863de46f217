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


class Timer:
    """An APScheduler with one worker, so that jobs that are due together run one after the other.

    A tick is skipped if its previous run is still running or waiting when it is due again. Several missed
    runs are combined into one.
    """

    def __init__(self, run: Callable[[str], None], on_skip: Callable[[str], None]) -> None:
        """Prepare; `run` is called with the name of a due tick, `on_skip` with that of a skipped tick."""
        self._run = run
        self._on_skip = on_skip
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            # The default misfire_grace_time silently skips a job that starts a second late.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._skip, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Start no further job; a running job continues."""
        # If APScheduler shuts down while it submits a job, its thread fails with JobLookupError. While paused
        # it submits none, and `get_jobs` waits for a submission in progress.
        self._scheduler.pause()
        self._scheduler.get_jobs()
        self._scheduler.shutdown(wait=False)

    def enter(self, tick: Tick, now: float) -> None:
        """Run a tick in every interval, at its offset in it; `now` is in seconds since 1970."""
        self._scheduler.add_job(
            self._run,
            "interval",
            seconds=tick.interval,
            start_date=_utc(tick.first_due(now)),
            args=[tick.name],
            id=tick.name,
        )

    def leave(self, name: str) -> None:
        """Remove a tick and its retry from the schedule."""
        for job in (name, _again(name)):
            with suppress(JobLookupError):
                self._scheduler.remove_job(job)

    def once(self, act: Callable[..., None], *arguments: object, number: int = 0) -> None:
        """Queue a call of `act` on the worker now; calls with a lower `number` run first."""
        # The times differ by a microsecond, added as timedelta because two floats may round to the same time.
        # Without an id, because a previous run with it may still be registered and would block this run.
        at = _utc(time.time()) + timedelta(microseconds=number)
        self._scheduler.add_job(act, "date", run_date=at, args=arguments)

    def again(self, name: str, at: float) -> None:
        """Run a tick once more at `at` (seconds since 1970), unless its regular run is earlier."""
        regular = self._scheduler.get_job(name)
        if regular is None or at < regular.next_run_time.timestamp():
            self._scheduler.add_job(
                self._run, "date", run_date=_utc(at), args=[name], id=_again(name), replace_existing=True
            )

    def next_run(self, name: str) -> float | None:
        """Return the time of a tick's next run in seconds since 1970; None if it is not scheduled."""
        jobs = [self._scheduler.get_job(job) for job in (name, _again(name))]
        return min((job.next_run_time.timestamp() for job in jobs if job and job.next_run_time), default=None)

    def until_next(self) -> float:
        """Return the seconds until the next job is due, at most a day; negative if it is overdue."""
        due = [job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time]
        return min(due, default=_utc(time.time()) + timedelta(days=1)).timestamp() - time.time()

    def set_right(self, ticks: Iterable[Tick], now: float) -> None:
        """Reschedule the `ticks` that are due too late because the clock was set back; `now` since 1970."""
        for tick in ticks:
            job = self._scheduler.get_job(tick.name)
            # `first_due` is at most one and a half intervals ahead.
            if job and job.next_run_time and job.next_run_time.timestamp() - now > 1.6 * tick.interval + 1.0:
                logger.warning("the clock was set back; tick %s is rescheduled", tick.name)
                with suppress(JobLookupError):  # the tick may have been removed just now
                    self._scheduler.reschedule_job(
                        tick.name,
                        trigger="interval",
                        seconds=tick.interval,
                        start_date=_utc(tick.first_due(now)),
                    )

    def wake(self) -> None:
        """Make the scheduler look for due jobs now.

        APScheduler plans by the wall clock but waits by the monotonic clock. So it would sleep too long after
        the clock was set forward or the machine was suspended.
        """
        self._scheduler.wakeup()

    def _skip(self, event: JobEvent) -> None:
        if self._scheduler.get_job(event.job_id) is not None:
            self._on_skip(event.job_id)


def _again(tick: str) -> str:
    return f"{tick} again"  # no tick has this name, because tick names end in a duration


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

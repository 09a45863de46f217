"""Poll on schedule until told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from poller.model import PollResult, QueryDefinition
from poller.schedule import Tick

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


class Poll(Protocol):
    """Poll one tick's queries and take their results in; returns them."""

    def __call__(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]: ...


class Daemon:
    """One worker that runs every tick at its time, one after the other.

    There is one worker because there is one connection: two ticks due together follow each other, a tick
    that is still running when it is due again is left out once (and counted), and any number of missed runs
    makes one. A tick that found no server is tried again soon, at doubling distances up to a minute.
    """

    def __init__(
        self,
        ticks: Sequence[Tick],
        poll: Poll,
        *,
        rest: Callable[[float], None] = lambda _: None,
        on_overrun: Callable[[str], None] = lambda _: None,
        on_first_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the schedule; nothing runs before `start`.

        After each tick `rest` is told the seconds until the next one. `on_first_tick` is called after the
        first run of each tick, on the worker's thread.
        """
        self._ticks = {tick.name: tick for tick in ticks}
        self._poll = poll
        self._rest = rest
        self._on_overrun = on_overrun
        self._on_first_tick = on_first_tick
        self._failures: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._seen: set[str] = set()
        self._idle = threading.Event()
        self._idle.set()
        self._stopping = False
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            # The defaults would drop a tick that starts a second late (misfire_grace_time) without a word.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._overran, EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._broke, EVENT_JOB_ERROR)

    def start(self) -> None:
        """Run every tick once now, and from then on at its place in the interval."""
        now = time.time()
        for number, tick in enumerate(self._ticks.values()):
            # A microsecond apart, so that they run in the order of the query files; added to the time as
            # a datetime, as two floats of today that are a microsecond apart may round to the same one.
            self._once(f"first {tick.name}", tick, _utc(now) + timedelta(microseconds=number))
            self._scheduler.add_job(
                self._run,
                "interval",
                seconds=tick.interval,
                start_date=_utc(tick.first_due(now)),
                args=[tick],
                id=tick.name,
            )
        self._scheduler.start()

    def stop(self, interrupt: Callable[[], None], timeout: float) -> bool:
        """Start no tick any more, interrupt the one under way, wait at most `timeout` seconds for its end.

        Returns whether the worker came to rest.
        """
        self._stopping = True
        interrupt()
        # Shut down while it hands out a job, APScheduler misses that job afterwards (JobLookupError in its
        # thread). Paused, it hands out none; the look at the jobs waits for the one in its hands.
        self._scheduler.pause()
        self._scheduler.get_jobs()
        self._scheduler.shutdown(wait=False)
        return self._idle.wait(timeout)

    def _run(self, tick: Tick) -> None:
        self._idle.clear()
        left_out = self._left_out.get(tick.name, 0)
        try:
            # Looked at after `_idle` is cleared, so that `stop` either waits for this run or prevents it.
            if self._stopping:
                return
            results = self._poll(tick.queries)
            if not self._stopping:
                self._plan_retry(tick, results)
                self._rest(self._until_next())
        finally:
            self._idle.set()
            if self._left_out.get(tick.name, 0) == left_out:
                self._left_out.pop(tick.name, None)  # it keeps up again, and the next time is news
            if tick.name not in self._seen and not self._stopping:
                self._seen.add(tick.name)
                self._on_first_tick()

    def _plan_retry(self, tick: Tick, results: Sequence[PollResult]) -> None:
        # Soon only where no query was sent: one that kills its own backend must not do so every second.
        if not any(
            result.error and result.error.kind == "unavailable" and result.error.unsent for result in results
        ):
            self._failures.pop(tick.name, None)
            return
        failures = self._failures.get(tick.name, 0)
        self._failures[tick.name] = failures + 1
        # Bounded before it is a float: a day's outage would overflow it.
        again = time.time() + min(FIRST_RETRY_SECONDS * 2 ** min(failures, 16), LONGEST_RETRY_SECONDS)
        regular = self._scheduler.get_job(tick.name)
        if regular is None or again < regular.next_run_time.timestamp():
            self._once(f"retry {tick.name}", tick, _utc(again))

    def _once(self, job: str, tick: Tick, at: datetime) -> None:
        self._scheduler.add_job(self._run, "date", run_date=at, args=[tick], id=job, replace_existing=True)

    def _until_next(self) -> float:
        due = [job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time]
        return min(due, default=_utc(time.time()) + timedelta(days=1)).timestamp() - time.time()

    def _overran(self, event: JobEvent) -> None:
        times = self._left_out[event.job_id] = self._left_out.get(event.job_id, 0) + 1
        level = logging.WARNING if times == 1 else logging.DEBUG
        logger.log(level, "tick %s left out: the one before still runs", event.job_id)
        self._on_overrun(event.job_id)

    def _broke(self, event: JobEvent) -> None:
        # A defect of ours: APScheduler would log it under its own name and go on, and so do we.
        logger.error("tick %s ended in a defect of the poller", event.job_id, exc_info=event.exception)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

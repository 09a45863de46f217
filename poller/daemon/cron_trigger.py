"""APScheduler trigger of a schedule, and the runs that it plans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from poller.model.schedule import Schedule

CATCH_UP_SECONDS = 600.0
"""Time after a run for which a poller that starts without a stored value runs it: a restart loses no run."""


@lru_cache(1024)
def to_trigger(schedule: Schedule) -> CronTrigger:
    """Return the trigger of a schedule.

    Its values are listed one by one, because APScheduler counts weekdays from Monday, unlike cron. A run in
    the hour that daylight saving time skips is an hour later, and one in the repeated hour runs twice.
    """
    fields = schedule.fields
    weekdays = [(day - 1) % 7 for day in fields.weekdays]
    return CronTrigger(
        month=_listed(fields.months),
        day="*" if fields.every_day else _listed(fields.days),
        day_of_week="*" if fields.every_weekday else _listed(weekdays),
        hour=_listed(fields.hours),
        minute=_listed(fields.minutes),
        timezone=UTC if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone),
    )


def next_runs(schedule: Schedule, after: float, number: int) -> list[datetime]:
    """Return the next runs after a time in seconds since 1970, in the time zone of the schedule."""
    trigger, runs = to_trigger(schedule), list[datetime]()
    at = datetime.fromtimestamp(after, UTC)
    for _ in range(number):
        run = trigger.get_next_fire_time(None, at)
        if run is None:  # beyond the year 9999
            break
        at = run.astimezone(UTC)
        runs.append(at.astimezone(run.tzinfo))  # a time in the skipped hour is an hour later
        at += timedelta(microseconds=1)
    return runs


def is_missed(schedule: Schedule, last: float | None, now: float) -> bool:
    """Return whether a run was due after the `last` successful one; both times in seconds since 1970.

    Without a last run only the previous CATCH_UP_SECONDS count.
    """
    since = now - CATCH_UP_SECONDS if last is None else last
    return any(run.timestamp() <= now for run in next_runs(schedule, since, 1))


def _listed(values: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, values))

"""Schedules by cron in the syntax of other tools."""

from __future__ import annotations

import re
from typing import NamedTuple

from poller.model.duration import parse_duration
from poller.model.schedule import distances, parse_schedule
from poller.tools.importers.node import SourceNode

_FROM_MONDAY = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOUR = 3600.0
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")


class CronSchedule(NamedTuple):
    """Schedule of a query, or the interval that replaces it; all empty if it cannot be kept."""

    expression: str = ""
    timezone: str = ""
    interval: float | None = None
    """Seconds."""


def read_schedule(node: SourceNode, key: str, *, from_monday: bool = False) -> CronSchedule:
    """Return the schedule at `key`, and report what changes; `from_monday` if weekday 0 is Monday."""
    written = " ".join(node.text(key).split())
    zone, expression = match.groups() if (match := _ZONE.fullmatch(written)) else ("", written)
    if expression.startswith("@every "):
        try:
            return CronSchedule(interval=float(str(parse_duration(expression.removeprefix("@every ")))))
        except ValueError as error:
            return _lose(node, key, str(error))
    expression = expression.replace("?", "*")
    changes = []
    if from_monday and len(fields := expression.split()) == 5:
        weekday = re.sub(r"^\*/", "mon-sun/", fields[4])
        weekday = re.sub(r"(?<![/\w])[0-6](?!\w)", lambda match: _FROM_MONDAY[int(match[0])], weekday)
        if weekday != fields[4]:
            changes.append(f"weekday {fields[4]} counts from 0 for Monday; it is now {weekday}")
        expression = " ".join([*fields[:4], weekday])
    try:
        expression = parse_schedule(expression)
    except ValueError as error:
        return _lose(node, key, str(error))
    if not zone and distances(expression).longest > _HOUR:
        changes.append("was in the local time of the exporter; it is now in UTC, add `timezone`")
    for change in changes:
        node.report_change(key, change)
    return CronSchedule(expression, zone)


def _lose(node: SourceNode, key: str, problem: str) -> CronSchedule:
    problem, _, advice = problem.partition("; ")
    node.report_loss(key, problem, advice or "write five fields")
    return CronSchedule()

"""Schedule by cron: the values of its five fields, and the times between two runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

from poller.model.text import quote

MAX_LENGTH = 200
"""Maximum characters of an expression."""
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = "minute, hour, day of the month, month, weekday"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_VALUE = "[0-9]{1,2}|[a-z]{3}"
_ITEM = re.compile(rf"(?:\*|(?P<first>{_VALUE})(?:-(?P<last>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,2}}))?")


class _Kind(NamedTuple):
    """One of the five fields: its name, its smallest and largest number, and names of the numbers."""

    name: str
    least: int
    most: int
    end: int
    """Largest number of `*`: 7 is a second number of Sunday."""
    names: tuple[str, ...] = ()


_KINDS = (
    _Kind("minute", 0, 59, 59),
    _Kind("hour", 0, 23, 23),
    _Kind("day of the month", 1, 31, 31),
    _Kind("month", 1, 12, 12, _MONTHS),
    _Kind("weekday", 0, 7, 6, _WEEKDAYS),
)


class Fields(NamedTuple):
    """The values of an expression, ascending; weekdays are 0 (Sunday) to 6. Days or weekdays are complete."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    @property
    def every_day(self) -> bool:
        return len(self.days) == 31

    @property
    def every_weekday(self) -> bool:
        return len(self.weekdays) == 7


class Distances(NamedTuple):
    """Seconds between two successive runs, without the changes of daylight saving time."""

    shortest: float
    longest: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times at which a query runs: an expression of cron, and the time zone of its clock."""

    expression: str
    """Five fields, as `parse_schedule` returns them."""
    timezone: str = "UTC"
    """Name in the tz database, such as `Europe/Berlin`."""

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"

    @property
    def fields(self) -> Fields:
        return _fields(self.expression)

    @property
    def distances(self) -> Distances:
        return distances(self.expression)


def parse_schedule(text: str) -> str:
    """Return an expression of cron with its five fields in lower case, separated by single spaces.

    Raises ValueError with all problems.
    """
    if not text.strip():
        raise ValueError(f"is empty; write five fields ({_FIELDS})")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"has more than {MAX_LENGTH} characters; write ranges (1-5) and steps (*/5)")
    words = text.lower().split()
    if words[0] == "@every":
        raise ValueError(
            f"{quote(text)} is an interval; write `interval: {' '.join(words[1:]) or '5m'}` instead"
        )
    if words[0].startswith("@"):
        expression = MACROS.get(" ".join(words))
        if expression is None:
            raise ValueError(
                f"{quote(text)} is not one of {', '.join(MACROS)}; write one of these, or five fields"
            )
        return expression
    if len(words) == 6:
        raise ValueError(f"{quote(text)} has 6 fields; omit the seconds, and write five: {_FIELDS}")
    if len(words) != 5:
        raise ValueError(f"{quote(text)} is not a schedule; write five fields: {_FIELDS}")
    expression = " ".join(words)
    fields = _fields(expression)
    if not fields.every_day and not fields.every_weekday:
        raise ValueError(
            f"{quote(text)} limits the day of the month ({words[2]}) and the weekday ({words[4]}), which "
            "tools combine by either `and` or `or`; write * for one of them"
        )
    if _dates(fields) == ():
        raise ValueError(
            f"{quote(text)} never runs, because its months have no such day; write an earlier day"
        )
    return expression


@lru_cache(1024)
def distances(expression: str) -> Distances:
    """Return the shortest and the longest time between two successive runs.

    They are those of the years 2000 to 2009, so that they do not depend on the time of the call.
    """
    fields = _fields(expression)
    minutes = [60 * hour + minute for hour in fields.hours for minute in fields.minutes]
    night = timedelta(minutes=minutes[0] - minutes[-1])
    gaps = {(later - earlier + night).total_seconds() for earlier, later in pairwise(_dates(fields))}
    gaps |= {60.0 * (later - earlier) for earlier, later in pairwise(minutes)}
    return Distances(min(gaps), max(gaps))


def _dates(fields: Fields) -> tuple[date, ...]:
    """Return the dates of the years 2000 to 2009, with three leap days, on which the fields allow a run."""
    days, months, weekdays = set(fields.days), set(fields.months), set(fields.weekdays)
    return tuple(
        day
        for day in _decade()
        if day.month in months and day.day in days and day.isoweekday() % 7 in weekdays
    )


@cache
def _decade() -> tuple[date, ...]:
    first = date(2000, 1, 1)
    return tuple(first + timedelta(days=number) for number in range((date(2010, 1, 1) - first).days))


@lru_cache(1024)
def _fields(expression: str) -> Fields:
    """Return the values of five fields; raises ValueError with all problems."""
    values: list[tuple[int, ...]] = []
    problems: list[str] = []
    for kind, text in zip(_KINDS, expression.split(), strict=True):
        try:
            values.append(_values(text, kind))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return Fields(*values)


def _values(text: str, kind: _Kind) -> tuple[int, ...]:
    """Return the values of one field, ascending; raises ValueError."""
    values: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _wrong(item, kind)
        first, last, step = (match[name] for name in ("first", "last", "step"))
        start = kind.least if first is None else _number(first, item, kind)
        end = kind.end if first is None or (step and last is None) else start
        if last is not None:
            end = _number(last, item, kind)
            end = 7 if last == "sun" and start else end
        if end < start:
            raise ValueError(
                f"the {kind.name} {quote(item)} ends before it begins; write two ranges separated by a comma"
            )
        width = int(step) if step else 1
        if not 1 <= width <= kind.most - kind.least:
            raise _wrong(item, kind)
        values.update(range(start, end + 1, width))
    return tuple(sorted({value % 7 for value in values} if kind.names is _WEEKDAYS else values))


def _number(text: str, item: str, kind: _Kind) -> int:
    if text in kind.names:
        return kind.names.index(text) + kind.least
    if not text.isdigit() or not kind.least <= int(text) <= kind.most:
        raise _wrong(item, kind)
    return int(text)


def _wrong(item: str, kind: _Kind) -> ValueError:
    names = f" or {kind.names[0]} to {kind.names[-1]}" if kind.names else ""
    return ValueError(
        f"the {kind.name} {quote(item)} cannot be read; write *, or {kind.least} to {kind.most}{names} "
        "with commas, ranges (1-5) and steps (*/5)"
    )

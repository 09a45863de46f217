"""A schedule has the fields of cron, and the times between two runs are known before the first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.daemon.cron_trigger import is_missed, next_runs
from poller.model.schedule import MACROS, MAX_LENGTH, Schedule, distances, parse_schedule

DAY, HOUR = 86400.0, 3600.0
EVERY = tuple(range(7))
BERLIN = "Europe/Berlin"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def runs(expression: str, after: str, number: int, timezone: str = "UTC") -> list[str]:
    schedule = Schedule(parse_schedule(expression), timezone)
    return [f"{run:%a %Y-%m-%d %H:%M %Z}" for run in next_runs(schedule, at(after), number)]


@pytest.mark.parametrize(
    ("written", "weekdays"),
    [
        ("0", (0,)),
        ("7", (0,)),
        ("sun", (0,)),
        ("1", (1,)),
        ("1-5", (1, 2, 3, 4, 5)),
        ("MON-Fri", (1, 2, 3, 4, 5)),
        ("5-7", (0, 5, 6)),
        ("sat-sun", (0, 6)),
        ("mon-sun/2", (0, 1, 3, 5)),
        ("*/2", (0, 2, 4, 6)),
        ("4/2", (4, 6)),
        ("0-7", EVERY),
        ("1,3,3", (1, 3)),
    ],
)
def test_weekdays_count_from_sunday_as_in_cron(written: str, weekdays: tuple[int, ...]) -> None:
    assert Schedule(parse_schedule(f"0 0 * * {written}")).fields.weekdays == weekdays


def test_a_run_is_on_the_weekday_of_cron_and_not_on_that_of_apscheduler() -> None:
    assert runs("0 3 * * 1", "2026-12-01", 2) == ["Mon 2026-12-07 03:00 UTC", "Mon 2026-12-14 03:00 UTC"]
    assert runs("0 3 * * 0", "2026-12-01", 1) == ["Sun 2026-12-06 03:00 UTC"]


@pytest.mark.parametrize("macro", MACROS)
def test_a_macro_is_replaced_by_its_fields(macro: str) -> None:
    assert parse_schedule(f" {macro.upper()} ") == MACROS[macro] == parse_schedule(MACROS[macro])


def test_equal_schedules_are_equal_whatever_their_spaces_and_letters() -> None:
    assert parse_schedule("  0  3 * JAN Mon ") == parse_schedule("0 3 * jan mon") == "0 3 * jan mon"


@pytest.mark.parametrize(
    ("expression", "shortest", "longest"),
    [
        ("* * * * *", 60.0, 60.0),
        ("15 3 * * *", DAY, DAY),
        ("*/5 9-17 * * mon-fri", 300.0, 2 * DAY + 15 * HOUR + 300),
        ("0 0 * * 0", 7 * DAY, 7 * DAY),
        ("0 0 1 * *", 28 * DAY, 31 * DAY),
        ("0 0 29 2 *", 4 * 365.25 * DAY, 4 * 365.25 * DAY),
        ("59 23 31 12 *", 365 * DAY, 366 * DAY),
        ("0,50 0,23 * * *", 600.0, 22 * HOUR + 600),
    ],
)
def test_the_shortest_and_longest_times_between_two_runs(
    expression: str, shortest: float, longest: float
) -> None:
    assert distances(expression) == (shortest, longest)


def test_a_long_expression_is_rejected_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="more than 200 characters"):
        parse_schedule("1," * MAX_LENGTH + " * * * *")


def test_a_run_that_daylight_saving_time_skips_is_an_hour_later() -> None:
    assert runs("30 2 * * *", "2026-03-28T12:00", 2, BERLIN) == [
        "Sun 2026-03-29 03:30 CEST",  # the clock goes from 02:00 CET to 03:00 CEST
        "Mon 2026-03-30 02:30 CEST",
    ]
    (skipped,) = next_runs(Schedule("30 2 * * *", BERLIN), at("2026-03-28T12:00"), 1)
    assert skipped.timestamp() == at("2026-03-29T01:30")


def test_a_run_in_the_repeated_hour_runs_twice() -> None:
    assert runs("30 2 * * *", "2026-10-24T12:00", 3, BERLIN) == [
        "Sun 2026-10-25 02:30 CEST",
        "Sun 2026-10-25 02:30 CET",
        "Mon 2026-10-26 02:30 CET",
    ]


def test_a_daily_run_keeps_its_time_of_the_clock() -> None:
    assert runs("15 3 * * *", "2026-10-23T12:00", 3, BERLIN) == [
        "Sat 2026-10-24 03:15 CEST",
        "Sun 2026-10-25 03:15 CET",
        "Mon 2026-10-26 03:15 CET",
    ]


def test_a_leap_day_is_found_across_a_century() -> None:
    assert runs("0 0 29 2 *", "2096-02-29T00:01", 1) == ["Fri 2104-02-29 00:00 UTC"]


def test_a_run_is_missed_if_it_was_due_after_the_last_success() -> None:
    nightly, now = Schedule("15 3 * * *", BERLIN), at("2026-12-02T10:00")
    assert is_missed(nightly, at("2026-12-02T02:14"), now)
    assert not is_missed(nightly, at("2026-12-02T02:15") + 0.001, now), "02:15 UTC is 03:15 in Berlin"
    assert is_missed(nightly, at("2025-01-01T00:00"), now)


def test_without_a_stored_value_only_a_run_of_the_last_minutes_is_missed() -> None:
    nightly = Schedule("15 3 * * *")
    assert not is_missed(nightly, None, at("2026-12-02T03:14"))
    assert is_missed(nightly, None, at("2026-12-02T03:15"))
    assert is_missed(nightly, None, at("2026-12-02T03:24"))
    assert not is_missed(nightly, None, at("2026-12-02T03:26"))


def items(least: int, most: int) -> st.SearchStrategy[str]:
    def written(bounds: tuple[int, int], step: int) -> str:
        first, last = sorted(bounds)
        text = str(first) if first == last else f"{first}-{last}"
        return f"{text}/{step}" if first != last and step > 1 else text

    number = st.integers(least, most)
    item = st.builds(written, st.tuples(number, number), st.integers(1, most - least))
    return st.just("*") | st.lists(item, min_size=1, max_size=3).map(",".join)


expressions = st.one_of(
    st.tuples(items(0, 59), items(0, 23), items(1, 28), items(1, 12), st.just("*")),
    st.tuples(items(0, 59), items(0, 23), st.just("*"), items(1, 12), items(0, 7)),
).map(" ".join)


@given(expressions, st.floats(at("2020-01-01"), at("2035-01-01")))
def test_the_trigger_runs_at_the_fields_values_and_never_closer_or_farther_than_known(
    expression: str, after: float
) -> None:
    schedule = Schedule(parse_schedule(expression))
    planned = next_runs(schedule, after, 30)
    fields = schedule.fields
    for run in planned:
        assert (run.minute in fields.minutes, run.hour in fields.hours, run.second) == (True, True, 0)
        assert run.day in fields.days
        assert run.month in fields.months
        assert run.isoweekday() % 7 in fields.weekdays
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(planned)]
    shortest, longest = schedule.distances
    # A year's last run and the next year's first are up to a week apart from those of 2000 to 2009.
    assert shortest <= min(gaps)
    assert max(gaps) <= longest + (0 if longest < 300 * DAY else 7 * DAY)
    assert planned[0].timestamp() > after - 0.001


@given(expressions)
def test_no_run_is_omitted(expression: str) -> None:
    schedule = Schedule(parse_schedule(expression))
    fields, start = schedule.fields, datetime(2027, 2, 27, tzinfo=UTC)
    expected = [
        minute
        for number in range(4 * 1440)
        if (minute := start + timedelta(minutes=number)).minute in fields.minutes
        and minute.hour in fields.hours
        and minute.day in fields.days
        and minute.month in fields.months
        and minute.isoweekday() % 7 in fields.weekdays
    ][:50]
    planned: Sequence[datetime] = next_runs(schedule, start.timestamp(), max(1, len(expected)))
    assert list(planned)[: len(expected)] == expected


@given(st.text("0123456789*,-/ @?#LWabcdefjmnostuw", max_size=40))
def test_any_text_is_a_schedule_with_runs_or_is_rejected(text: str) -> None:
    try:
        expression = parse_schedule(text)
    except ValueError:
        return
    assert next_runs(Schedule(expression), 0.0, 1)
    assert 60 <= distances(expression).shortest <= distances(expression).longest

"""Data points with the time of their rows: the newest closed row of each series, once, in order."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import Metric

from poller.model.casts import not_a_time
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult, Sample
from poller.model.rows import Column, Rows
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.mapping import Mapped, to_samples
from poller.polling.store import ResultStore
from tests.bed.definitions import a_metric, a_query, a_result

TIMESTAMPTZ = 1184
COLUMNS = (Column("n", 20), Column("kind", 25), Column("at", TIMESTAMPTZ))
SETTLE = 10
THINGS = a_metric(attribute_columns=("kind",), time_column="at", settle=SETTLE)
QUERY = a_query(metrics=(THINGS,))
START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = 10**9

Exported = tuple[str, int, int]
"""Kind, time in seconds since START, and value."""


def seconds(at: int) -> float:
    return (START + timedelta(seconds=at)).timestamp()


def row(kind: str, at: int | str, n: int | None = 1) -> tuple[bytes | None, ...]:
    text = at if isinstance(at, str) else (START + timedelta(seconds=at)).isoformat(sep=" ")
    return (None if n is None else str(n).encode(), kind.encode(), text.encode())


def mapped(now: int, *rows: tuple[bytes | None, ...], query: QueryDefinition = QUERY) -> Mapped:
    return to_samples(query, Rows(COLUMNS, list(rows)), seconds(now))


def described(samples: tuple[Sample, ...]) -> list[Exported]:
    start = round(START.timestamp()) * SECOND
    return [
        (str(sample.attributes["kind"]), (sample.time.at - start) // SECOND, int(sample.value))
        for sample in samples
        if sample.time is not None
    ]


class Life:
    """A store that is polled and exported."""

    def __init__(self, query: QueryDefinition = QUERY) -> None:
        self.query = query
        self.store = ResultStore([query])
        self.instruments = CatalogInstruments("1.2.3")

    def poll(self, now: int, *rows: tuple[bytes | None, ...], database: str = "app") -> PollResult:
        result = mapped(now, *rows, query=self.query)
        (stored,) = self.store.put(
            [
                a_result(
                    self.query, *result.samples,
                    rejected=result.rejected, closed=result.closed, unsettled=result.unsettled,
                    database=database,
                )
            ],
            0.0,
        )  # fmt: skip
        return stored

    def collect(self) -> list[Metric]:
        return self.instruments.collect(Frame(self.query.metrics, tuple(self.store.current(0.0))))

    def export(self, *, confirm: bool = True) -> list[Exported]:
        start = round(START.timestamp()) * SECOND
        points: list[Any] = [point for metric in self.collect() for point in metric.data.data_points]
        if confirm:
            self.store.confirm_export()
        return [
            (point.attributes["kind"], (point.time_unix_nano - start) // SECOND, point.value)
            for point in points
        ]


def test_the_newest_closed_row_of_each_series_becomes_a_data_point_with_its_time() -> None:
    result = mapped(100, row("a", 80, 1), row("a", 90, 2), row("a", 91, 3), row("b", 70, 4))
    assert described(result.samples) == [("a", 90, 2), ("b", 70, 4)]
    assert (result.unsettled, result.older, result.rejected) == (1, 1, {})


@pytest.mark.parametrize(
    "at", ["2026-03-01 00:01:30+00", "2026-03-01 05:31:30+05:30", "2026-02-28 19:01:30-05"]
)
def test_the_time_zone_of_the_session_does_not_change_the_time(at: str) -> None:
    assert described(mapped(100, row("a", at)).samples) == [("a", 90, 1)]


def test_microseconds_are_exact() -> None:
    (sample,) = mapped(100, row("a", "2026-03-01 00:00:00.000001+00")).samples
    assert sample.time is not None
    assert sample.time.at == round(START.timestamp()) * SECOND + 1000


def test_a_time_in_the_future_is_rejected_and_counted() -> None:
    result = mapped(100, row("a", 101), row("b", 90))
    assert described(result.samples) == [("b", 90, 1)]
    assert result.rejected == {"future": 1}
    assert result.rejected_rows[0].reason == "future"


@pytest.mark.parametrize(
    "at",
    ["infinity", "-infinity", "1969-12-31 23:59:59+00", "1970-01-01 00:00:00+00", "0044-03-15 00:00:00+00 BC",
     "2262-04-12 00:00:00+00", "294276-12-31 00:00:00+00", "2026-03-01 00:00:00", ""],
)  # fmt: skip
def test_a_time_that_no_data_point_can_have_is_rejected(at: str) -> None:
    result = to_samples(QUERY, Rows(COLUMNS, [row("a", at)]), 1e10)
    assert (result.samples, result.rejected) == ((), {"not_a_time": 1})


def test_a_row_without_a_time_is_rejected() -> None:
    assert mapped(100, (b"1", b"a", None)).rejected == {"not_a_time": 1}


def test_a_null_in_an_open_row_does_not_fail_the_query() -> None:
    strict = a_query(
        metrics=(a_metric(attribute_columns=("kind",), time_column="at", settle=9, on_null="fail"),)
    )
    assert mapped(100, row("a", 95, None), row("a", 80), query=strict).unsettled == 1
    with pytest.raises(PollError):
        mapped(100, row("a", 80, None), query=strict)


def test_two_rows_of_one_series_and_time_are_duplicates() -> None:
    result = mapped(100, row("a", 90, 1), row("a", 90, 2), row("a", 80, 3))
    assert (described(result.samples), result.rejected) == ([("a", 80, 3)], {"duplicate": 2})


@pytest.mark.parametrize(
    ("oid", "advice"),
    {
        1114: "write at AT TIME ZONE 'UTC'",
        1082: "write at::timestamp AT TIME ZONE 'UTC'",
        20: "write to_timestamp(at)",
        25: "write at::timestamptz",
        16: "select a timestamptz",
    }.items(),
)  # fmt: skip
def test_a_time_column_of_another_type_fails_the_query_with_a_remedy(oid: int, advice: str) -> None:
    columns = (*COLUMNS[:2], Column("at", oid))
    with pytest.raises(PollError, match="not timestamptz") as caught:
        to_samples(QUERY, Rows(columns, [row("a", 1)]), seconds(100))
    assert caught.value.message.endswith(advice)
    assert not_a_time("at", TIMESTAMPTZ) is None


def test_the_other_metrics_of_a_query_remain_if_a_time_column_has_another_type() -> None:
    both = a_query(metrics=(THINGS, a_metric("others", attribute_columns=("kind",))))
    result = to_samples(both, Rows((*COLUMNS[:2], Column("at", 1114)), [row("a", 1)]), seconds(100))
    assert [sample.metric for sample in result.samples] == ["others"]
    assert result.rejected == {"not_a_time": 1}


def test_a_data_point_is_exported_once() -> None:
    life = Life()
    life.poll(100, row("a", 90))
    assert life.export() == [("a", 90, 1)]
    assert life.export() == []
    result = life.poll(101, row("a", 90))
    assert life.export() == []
    assert (len(result.samples), result.rejected) == (1, {}), "it does not count as missing"
    life.poll(111, row("a", 90), row("a", 101, 2))
    assert life.export() == [("a", 101, 2)]


def test_the_rows_of_another_database_are_not_compared_with_those_of_the_previous_one() -> None:
    life = Life()
    life.poll(100, row("a", 90, 1))
    life.export()
    result = life.poll(101, row("a", 80, 2), database="other")
    assert result.rejected == {}
    assert life.export() == [("a", 80, 2)]


def test_a_data_point_that_was_not_handed_over_is_exported_again() -> None:
    life = Life()
    life.poll(100, row("a", 90))
    assert life.export(confirm=False) == life.export() == [("a", 90, 1)]


def test_a_value_that_changes_after_its_export_counts_as_late_once_per_change() -> None:
    life = Life()
    life.poll(100, row("a", 90, 1))
    life.export()
    changed = life.poll(101, row("a", 90, 2))
    assert (described(changed.samples), changed.rejected) == ([("a", 90, 1)], {"late": 1})
    assert "longer settle" in (changed.advice or "")
    assert life.poll(102, row("a", 90, 2)).rejected == {}
    assert life.export() == []


def test_a_value_that_changes_before_its_export_is_exported_as_it_is_last() -> None:
    life = Life()
    life.poll(100, row("a", 90, 1))
    assert life.poll(101, row("a", 90, 2)).rejected == {}
    assert life.export() == [("a", 90, 2)]


def test_a_row_that_is_older_than_an_exported_one_counts_as_late() -> None:
    life = Life()
    life.poll(100, row("a", 90))
    life.export()
    assert life.poll(101, row("a", 90), row("a", 85)).rejected == {"late": 1}
    assert life.export() == []


def test_rows_from_before_the_first_poll_do_not_count_as_late() -> None:
    life = Life()
    assert life.poll(100, row("a", 70), row("a", 80), row("a", 90)).rejected == {}
    assert life.poll(101, row("a", 70), row("a", 80), row("a", 90)).rejected == {}


def test_a_data_point_that_a_newer_one_replaces_before_its_export_counts_as_late() -> None:
    life = Life()
    life.poll(100, row("a", 90))
    assert life.poll(110, row("a", 90), row("a", 100)).rejected == {"late": 1}
    assert life.export() == [("a", 100, 1)]


def test_a_series_that_returns_is_exported_only_with_newer_times() -> None:
    life = Life()
    life.poll(100, row("a", 90), row("b", 90))
    life.export()
    life.poll(101, row("b", 90))
    life.poll(102, row("a", 90), row("b", 90))
    assert life.export() == []
    life.poll(110, row("a", 100))
    assert life.export() == [("a", 100, 1)]


def test_a_metric_without_a_time_column_keeps_the_time_of_the_export() -> None:
    both = a_query(metrics=(THINGS, a_metric("others", attribute_columns=("kind",))))
    life = Life(both)
    life.poll(100, row("a", 90))
    times = {metric.name: metric.data.data_points[0].time_unix_nano for metric in life.collect()}
    assert times["things"] == round(seconds(90)) * SECOND
    assert times["others"] > round(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * SECOND
    life.store.confirm_export()
    assert [metric.name for metric in life.collect()] == ["others"]


@pytest.mark.slow
def test_a_row_that_is_corrected_during_an_export_is_exported_once() -> None:
    interval = sys.getswitchinterval()
    life, ends, exported = Life(), threading.Event(), list[Exported]()

    def export() -> None:
        while not ends.is_set():
            exported.extend(life.export())

    exports = threading.Thread(target=export)
    sys.setswitchinterval(1e-6)
    try:
        exports.start()
        for now in range(100, 8000, 10):
            for value in range(5):
                life.poll(now, row("a", now - 10, value))
    finally:
        ends.set()
        exports.join()
        sys.setswitchinterval(interval)
    times = [at for _, at, _ in exported]
    assert times == sorted(set(times))
    assert len(times) > 10


KINDS = st.sampled_from("ab")
POLLS = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.dictionaries(st.tuples(KINDS, st.integers(0, 120)), st.integers(0, 3), max_size=8),
        st.sampled_from(["", "export", "failed export"]),
    ),
    max_size=8,
)


@given(POLLS)
def test_each_series_is_exported_in_order_and_only_with_closed_rows_of_the_last_poll(polls: Any) -> None:
    life, now = Life(), 0
    last: dict[str, int] = {}
    for pause, table, action in polls:
        now += pause
        result = life.poll(now, *(row(kind, at, n) for (kind, at), n in table.items()))
        future = sum(at > now for _, at in table)
        assert result.rejected.get("future", 0) == future
        assert result.unsettled == sum(now - SETTLE < at <= now for _, at in table)
        assert result.rejected.get("late", 0) <= len(table) + 2
        if action:
            for kind, at, _ in life.export(confirm=action == "export"):
                assert at <= now - SETTLE
                assert at > last.get(kind, -1)
                if action == "export":
                    last[kind] = at

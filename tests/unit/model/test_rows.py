"""The first rows of a result are retained in a defined order; the others are summed in bounded memory."""

from __future__ import annotations

import random

import pytest

from poller.model.rows import Column, Limit, Row, RowCollector, Rows

COLUMNS = (Column("n", 20), Column("kind", 25), Column("text", 25))


def limited(limit: Limit, rows: list[Row], portion: int = 3) -> Rows:
    keeper = RowCollector(limit, COLUMNS)
    for start in range(0, len(rows), portion):
        keeper.take(rows[start : start + portion])
    return keeper.rows()


def row(n: int | None, kind: str | None = "x") -> Row:
    return (None if n is None else str(n).encode(), kind.encode() if kind is not None else None, b"abc")


def test_rows_within_the_limit_are_all_retained() -> None:
    rows = [row(n) for n in range(5)]
    assert limited(Limit(5), rows) == Rows(COLUMNS, rows, 0, {})


@pytest.mark.parametrize("portion", [1, 2, 7, 100])
def test_the_first_rows_are_retained_in_order_of_arrival(portion: int) -> None:
    result = limited(Limit(4), [row(n) for n in range(50)], portion)
    assert [values[0] for values in result.values] == [b"0", b"1", b"2", b"3"]
    assert result.beyond == 46


def test_without_an_order_by_the_same_rows_are_retained_in_any_order_of_arrival() -> None:
    rows = [row(n, f"{n:03}") for n in range(200)] + [row(999, None)]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        result = limited(Limit(4, order=("kind",)), rows)
        assert [values[1] for values in result.values] == [None, b"000", b"001", b"002"]
        assert result.beyond == 197


def test_discarded_rows_are_summed_exactly_and_non_numbers_are_counted() -> None:
    rows = [row(2**62) for _ in range(10)] + [row(None)]
    result = limited(Limit(1, fold=("n", "text", "gone")), rows)
    assert set(result.folded) == {"n"}, "texts and missing columns have no sum"
    assert result.folded["n"].total == 9 * 2**62
    assert dict(result.folded["n"].rejected) == {"null": 1}


def test_memory_never_contains_more_than_twice_the_limit() -> None:
    keeper = RowCollector(Limit(10, order=("kind",), fold=("n",)), COLUMNS)
    for n in range(10_000):
        keeper.take([row(n, str(n))])
        assert len(keeper._rows) <= 20  # noqa: SLF001 - the test is about memory
    assert keeper.rows().beyond == 9990

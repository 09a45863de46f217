"""The first rows of a result are kept, in a stated order; the rest is accounted for in bounded memory."""

from __future__ import annotations

import random

import pytest

from poller.model.rows import Column, Limit, Row, RowCollector, Rows

COLUMNS = (Column("n", 20), Column("kind", 25), Column("text", 25))


def kept(limit: Limit, rows: list[Row], portion: int = 3) -> Rows:
    keeper = RowCollector(limit, COLUMNS)
    for start in range(0, len(rows), portion):
        keeper.take(rows[start : start + portion])
    return keeper.rows()


def row(n: int | None, kind: str | None = "x") -> Row:
    return (None if n is None else str(n).encode(), kind.encode() if kind is not None else None, b"abc")


def test_as_many_as_fit_are_all_kept() -> None:
    rows = [row(n) for n in range(5)]
    assert kept(Limit(5), rows) == Rows(COLUMNS, rows, 0, {})


@pytest.mark.parametrize("portion", [1, 2, 7, 100])
def test_the_first_are_kept_in_the_order_of_their_coming(portion: int) -> None:
    result = kept(Limit(4), [row(n) for n in range(50)], portion)
    assert [values[0] for values in result.values] == [b"0", b"1", b"2", b"3"]
    assert result.beyond == 46


def test_without_an_order_of_their_own_the_same_are_kept_however_they_come() -> None:
    rows = [row(n, f"{n:03}") for n in range(200)] + [row(999, None)]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        result = kept(Limit(4, order=("kind",)), rows)
        assert [values[1] for values in result.values] == [None, b"000", b"001", b"002"]
        assert result.beyond == 197


def test_what_is_not_kept_is_summed_exactly_and_what_is_no_number_counted() -> None:
    rows = [row(2**62) for _ in range(10)] + [row(None)]
    result = kept(Limit(1, fold=("n", "text", "gone")), rows)
    assert set(result.folded) == {"n"}, "a text has no sum, and a column that is not there has none"
    assert result.folded["n"].total == 9 * 2**62
    assert dict(result.folded["n"].refused) == {"null": 1}


def test_never_more_than_twice_the_limit_is_held() -> None:
    keeper = RowCollector(Limit(10, order=("kind",), fold=("n",)), COLUMNS)
    for n in range(10_000):
        keeper.take([row(n, str(n))])
        assert len(keeper._rows) <= 20  # noqa: SLF001 - memory is what this is about
    assert keeper.rows().beyond == 9990

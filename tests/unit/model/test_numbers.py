"""Numbers are added and classified exactly, in PostgreSQL's text format."""

from __future__ import annotations

from decimal import Decimal
from functools import reduce

import pytest

from poller.model.numbers import NotRepresentableError, Number, add, otlp_number


def test_a_sum_of_numeric_keeps_60_digits() -> None:
    """Python's default context has 28 digits and loses the 5."""
    parts: list[Number] = [Decimal(10) ** 30, 5, -(Decimal(10) ** 30)]
    assert reduce(add, parts) == 5
    assert add(Decimal(10) ** 59, Decimal(1)) == 10**59 + 1


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e309"])
def test_a_number_beyond_every_double_is_infinite(number: str) -> None:
    with pytest.raises(NotRepresentableError, match="infinite"):
        otlp_number(Decimal(number))

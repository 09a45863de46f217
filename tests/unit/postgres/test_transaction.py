"""The words around a query: its guards are there, and none of them twice."""

from __future__ import annotations

from poller.postgres.transaction import TransactionLimits, commonest_timeout
from tests.bed.definitions import a_query

QUICK, SLOW = (a_query(f"q{seconds}", "SELECT 1", timeout=seconds) for seconds in (5, 7))


def test_a_timeout_is_set_only_where_it_is_not_the_commonest() -> None:
    limits = TransactionLimits(1.0, 10.0, timeout=commonest_timeout([SLOW, QUICK, QUICK]))
    assert limits.timeout == 5
    (quick,), (slow,) = limits.shared(QUICK, "SELECT 1"), limits.shared(SLOW, "SELECT 1")
    assert quick.after == ("ROLLBACK TO SAVEPOINT tick",)
    assert slow.after == ("ROLLBACK TO SAVEPOINT tick", "SET LOCAL statement_timeout = 7000")
    opening = [sql for statement in limits.opening(["SELECT 2"]) for sql in (*statement.after, statement.sql)]
    assert opening[-2:] == ["SET LOCAL statement_timeout = 5000", "SAVEPOINT tick"]


def test_without_a_common_one_every_query_sets_its_own() -> None:
    limits = TransactionLimits(1.0, 10.0, timeout=commonest_timeout([]))
    assert limits.timeout is None
    (quick,) = limits.shared(QUICK, "SELECT 1")
    assert quick.after[-1] == "SET LOCAL statement_timeout = 5000"

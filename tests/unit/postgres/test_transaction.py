"""Statements around a query: each safeguard is set exactly once."""

from __future__ import annotations

from poller.postgres.transaction import TransactionLimits, TransactionStatements, commonest_timeout
from tests.bed.definitions import a_query

QUICK, SLOW = (a_query(f"q{seconds}", "SELECT 1", timeout=seconds) for seconds in (5, 7))


def test_a_timeout_is_set_only_if_it_is_not_the_most_common() -> None:
    statements = TransactionStatements(
        TransactionLimits(1.0), 10.0, timeout=commonest_timeout([SLOW, QUICK, QUICK])
    )
    assert statements.timeout == 5
    (quick,), (slow,) = statements.shared(QUICK, "SELECT 1"), statements.shared(SLOW, "SELECT 1")
    assert quick.preceding == ("ROLLBACK TO SAVEPOINT tick",)
    assert slow.preceding == ("ROLLBACK TO SAVEPOINT tick", "SET LOCAL statement_timeout = 7000")
    opening = [
        sql for statement in statements.opening("SELECT 2") for sql in (*statement.preceding, statement.sql)
    ]
    assert opening[-2:] == ["SET LOCAL statement_timeout = 5000", "SAVEPOINT tick"]


def test_without_a_common_timeout_every_query_sets_its_own() -> None:
    statements = TransactionStatements(TransactionLimits(1.0), 10.0, timeout=commonest_timeout([]))
    assert statements.timeout is None
    (quick,) = statements.shared(QUICK, "SELECT 1")
    assert quick.preceding[-1] == "SET LOCAL statement_timeout = 5000"

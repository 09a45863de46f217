"""A result that is larger than POLLER_MAX_RESULT_SIZE costs its query, and never the memory for it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing

import pytest

from poller.errors import PollError
from poller.replica import Replica
from poller.restraint import Restraint
from tests.bed.definitions import a_query, a_result
from tests.bed.postgres import Database
from tests.bed.process import eventually

pytestmark = pytest.mark.postgres

MIB = 2**20
ASK = """\
import json, resource, sys
from poller.replica import Replica
from tests.bed.definitions import a_query

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

dsn, sql, snapshot = json.loads(sys.argv[1])
replica = Replica(lambda: dsn, connect_timeout=5, lock_timeout=1, max_result_bytes=4 * 2**20)
queries = [a_query("first"), a_query("large", sql, snapshot=snapshot), a_query("last", snapshot=snapshot)]
replica.ask([a_query()])
before = peak()
answers = replica.ask(queries)
print(json.dumps([[answer.error and answer.error.kind for answer in answers], peak() - before]))
"""
LARGE = {
    "long rows": "SELECT repeat('x', 4 * 1024 * 1024) AS n FROM generate_series(1, 256)",
    "many rows": "SELECT n, repeat('x', 100) FROM generate_series(1, 4000000) AS n",
}


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("large", LARGE)
def test_a_large_result_is_cancelled_while_it_comes_and_costs_no_other_query(
    database: Database, large: str, snapshot: bool
) -> None:
    """A process of its own, as its peak of memory is measured; the whole result has 400 MB or more."""
    arguments = json.dumps([database.primary_dsn, LARGE[large], snapshot])
    done = subprocess.run([sys.executable, "-c", ASK, arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    errors, growth = json.loads(done.stdout)
    assert errors == [None, "too_large", None]
    assert growth < 64 * MIB
    assert eventually(
        lambda: (
            database.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            == [(0,)]
        )
    ), "nothing of it runs on"


@pytest.mark.parametrize(
    "large",
    ["SELECT repeat('x', 64 * 1024 * 1024) AS n", "SELECT ('x' || repeat('x', 64 * 1024 * 1024))::int AS n"],
)
def test_one_value_that_is_too_large_fails_its_query_in_a_row_as_in_an_error(
    database: Database, large: str
) -> None:
    """How much of it is read before that depends on how fast it comes."""
    with closing(
        Replica(lambda: database.primary_dsn, connect_timeout=5, lock_timeout=1, max_result_bytes=MIB // 8)
    ) as replica:
        answers = replica.ask([a_query("large", large), a_query("last")])
    assert [answer.error and answer.error.kind for answer in answers] == ["too_large", None]


def test_a_result_below_the_limit_is_whole_and_what_stands_behind_it_is_not_counted(
    database: Database,
) -> None:
    """Many results of a burst may be in the buffer at once; each has the limit for itself."""
    sql = "SELECT repeat('x', 600 * 1024) AS n"
    queries = [a_query(f"q{number}", sql) for number in range(20)]
    with closing(
        Replica(lambda: database.primary_dsn, connect_timeout=5, lock_timeout=1, max_result_bytes=MIB)
    ) as replica:
        answers = replica.ask(queries)
    assert [answer.rows and len(answer.rows.values[0][0] or b"") for answer in answers] == [600 * 1024] * 20


def test_the_breaker_holds_a_query_after_one_result_that_is_too_large() -> None:
    query = a_query()
    restraint = Restraint(max_duty_cycle=1.0)
    error = PollError("too_large", "the result has more than 4 bytes")
    restraint.note(a_result(query, outcome="failed", error=error, duration=0.5), now=1000.0)
    held = restraint.hold(query, 1000.0 + query.interval, None)
    assert held is not None
    assert held.reason == "breaker"
    assert restraint.hold(query, 1000.0 + 2 * query.interval, None) is None
    restraint.note(a_result(query, duration=0.1), now=2000.0)
    assert restraint.hold(query, 2000.0 + query.interval, None) is None

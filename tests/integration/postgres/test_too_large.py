"""A result larger than POLLER_MAX_RESULT_SIZE fails its query, without the memory for the whole result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from poller.demo.cluster import Cluster, PostgresServer
from poller.model.errors import PollError
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.pipeline import MAX_RESULT_BYTES
from poller.postgres.transaction import TransactionLimits
from tests.bed.definitions import a_query, a_result
from tests.bed.otlp import Certificates
from tests.bed.postgres import Database
from tests.bed.process import eventually
from tests.bed.programs import lacking
from tests.bed.replica import a_replica

pytestmark = pytest.mark.every_version

MIB = 2**20
DEBIAN = Path("/usr/lib/postgresql/15/bin")
PROGRAM = """\
import json, resource, sys
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from tests.bed.definitions import a_query

def peak():
    with open("/proc/self/status") as status:
        return int(status.read().partition("VmHWM:")[2].split()[0]) * 1024

dsn, sql, snapshot, limits, data_limit = json.loads(sys.argv[1])
replica = Replica(lambda: dsn, connect_timeout=60.0, limits=TransactionLimits(1, **limits))
large = a_query("large", sql, snapshot=snapshot, timeout=150)  # a busy server needs a while for some 500 MB
queries = [a_query("first"), large, a_query("last", snapshot=snapshot)]
replica.fetch([a_query()])
if data_limit:
    resource.setrlimit(resource.RLIMIT_DATA, (data_limit, data_limit))
before = peak()
answers = replica.fetch(queries)
print(json.dumps([[answer.error and answer.error.kind for answer in answers], peak() - before]))
"""
LARGE = {
    "long rows": "SELECT repeat('x', 4 * 1024 * 1024) AS n FROM generate_series(1, 256)",
    "many rows": "SELECT n, repeat('x', 100) FROM generate_series(1, 4000000) AS n",
}


HUGE = {
    "value": "SELECT repeat('x', 500000000) AS n",
    "error message": "SELECT ('x' || repeat('x', 200000000))::int AS n",
}


def fetch_in_a_process(
    dsn: str, sql: str, *, snapshot: bool = True, limit: int | None = None, data_limit: int | None = None
) -> tuple[list[str | None], int]:
    """Return the errors of three queries, of which `sql` is the second, and the growth of the memory peak.

    They run in a new process, so that the peak is theirs. `data_limit` is its RLIMIT_DATA.
    """
    limits = {} if limit is None else {"max_result_bytes": limit}
    arguments = json.dumps([dsn, sql, snapshot, limits, data_limit])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    errors, growth = json.loads(done.stdout)
    return errors, growth


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates) -> Iterator[PostgresServer]:
    if not DEBIAN.is_dir():  # the PostgreSQL of the wheel has no TLS
        lacking("PostgreSQL 15 of Debian (apt-get install postgresql-15)")
    with Cluster(DEBIAN, with_standby=False) as cluster:
        server = cluster.primary
        server.add_file("tls.pem", certificates.server.read_bytes())
        server.add_file("tls.key", certificates.server_key.read_bytes())
        server.configure(ssl="on", ssl_cert_file="tls.pem", ssl_key_file="tls.key")
        server.restart()
        yield server


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("way", ["TCP", "Unix socket"])
def test_memory_for_a_huge_message_is_never_allocated(cluster: Cluster, way: str, huge: str) -> None:
    """The server is on the same machine and sends as fast as libpq reads."""
    server = cluster.primary
    host = {"TCP": "127.0.0.1", "Unix socket": str(server.socket_dir)}[way]
    errors, growth = fetch_in_a_process(make_conninfo(server.dsn(), host=host), HUGE[huge])
    assert errors == [None, "too_large", None]
    assert growth < 100 * MIB


@pytest.mark.parametrize("huge", HUGE)
def test_memory_for_a_huge_message_is_never_allocated_over_tls(tls_server: PostgresServer, huge: str) -> None:
    errors, growth = fetch_in_a_process(make_conninfo(tls_server.dsn(), sslmode="require"), HUGE[huge])
    assert errors == [None, "too_large", None]
    assert growth < 100 * MIB


def test_a_value_that_does_not_fit_the_memory_of_libpq_is_too_large(database: Database) -> None:
    """Some hosts refuse an allocation; that is not a failure of the connection."""
    errors, _ = fetch_in_a_process(database.primary_dsn, HUGE["value"], data_limit=400 * MIB)
    assert errors == [None, "too_large", None]


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_a_value_just_below_the_default_limit_arrives_completely(
    tls_server: PostgresServer, sslmode: str
) -> None:
    dsn = make_conninfo(tls_server.dsn(), sslmode=sslmode)
    size = MAX_RESULT_BYTES - 256 * 1024
    with closing(a_replica(dsn)) as replica:
        before, large, after = replica.fetch(
            [a_query("before"), a_query("large", f"SELECT repeat('x', {size}) AS n"), a_query("after")]
        )
    assert large.rows is not None, large.error
    assert large.rows.values == [(b"x" * size,)]
    assert before.rows is not None
    assert after.rows is not None


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("large", LARGE)
def test_a_large_result_is_cancelled_while_it_arrives_and_affects_no_other_query(
    database: Database, large: str, snapshot: bool
) -> None:
    """The whole result has 400 MB or more."""
    errors, growth = fetch_in_a_process(database.primary_dsn, LARGE[large], snapshot=snapshot, limit=4 * MIB)
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
    ), "no query continues on the server"


@pytest.mark.parametrize(
    "large",
    ["SELECT repeat('x', 64 * 1024 * 1024) AS n", "SELECT ('x' || repeat('x', 64 * 1024 * 1024))::int AS n"],
)
def test_a_value_that_is_too_large_fails_its_query_in_a_row_and_in_an_error(
    database: Database, large: str
) -> None:
    with closing(a_replica(database.primary_dsn, limits=TransactionLimits(1, MIB // 8))) as replica:
        answers = replica.fetch([a_query("large", large), a_query("last")])
    assert [answer.error and answer.error.kind for answer in answers] == ["too_large", None]


def test_a_result_below_the_limit_is_complete_and_later_results_are_not_counted(
    database: Database,
) -> None:
    """Many results may be in the buffer at once; the limit applies to each of them."""
    sql = "SELECT repeat('x', 600 * 1024) AS n"
    queries = [a_query(f"q{number}", sql) for number in range(20)]
    with closing(a_replica(database.primary_dsn, limits=TransactionLimits(1, MIB))) as replica:
        answers = replica.fetch(queries)
    assert [answer.rows and len(answer.rows.values[0][0] or b"") for answer in answers] == [600 * 1024] * 20


def test_the_circuit_breaker_postpones_a_query_after_a_result_that_is_too_large() -> None:
    query = a_query()
    breaker = CircuitBreaker(max_duty_cycle=1.0)
    error = PollError("too_large", "the result has more than 4 bytes")
    breaker.record(a_result(query, outcome="failed", error=error, duration=0.5), now=1000.0)
    held = breaker.check(query, 1000.0 + query.interval, None)
    assert held is not None
    assert held.reason == "breaker"
    assert breaker.check(query, 1000.0 + 2 * query.interval, None) is None
    breaker.record(a_result(query, duration=0.1), now=2000.0)
    assert breaker.check(query, 2000.0 + query.interval, None) is None

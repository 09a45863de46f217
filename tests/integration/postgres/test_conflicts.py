"""Queries that a standby's recovery cancels run again, within bounds, and report why at last."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poller.demo.cluster import Cluster
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.model.retry import RetryConfig
from poller.polling.poll import to_result
from poller.postgres.cancellation import CancelToken
from poller.postgres.inspect import inspect
from poller.postgres.replica import CONFLICT_RETRY, TRIES_TOGETHER, Replica
from poller.postgres.server_facts import facts_query
from poller.postgres.transaction import TransactionLimits
from poller.receiver.receiver import Receiver
from poller.telemetry.poll_log import PollLog
from tests.bed.conflict_database import ConflictDatabase
from tests.bed.conflicts import DETAIL, LATER, PRIMARY, SLOW, STANDBY
from tests.bed.definitions import a_query
from tests.bed.process import Process, eventually
from tests.bed.queries import write_queries
from tests.bed.watch import Watch

pytestmark = pytest.mark.every_version

Make = Callable[..., Replica]
SEEN = "pg_current_snapshot()::text, (SELECT count(*) FROM dead), pg_backend_pid()"
"""The snapshot, something that it shows, and the connection."""
LOOK = f"SELECT {SEEN}"
HINTS = {
    "snapshot": "hot_standby_feedback = on",
    "lock": "max_standby_streaming_delay",
    "buffer_pin": "max_standby_streaming_delay",
    "tablespace": "a tablespace for temporary files was dropped",
    "deadlock": "exclusive locks on the primary",
    "database": "the database was dropped",
}


@pytest.fixture(scope="module")
def hasty(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Cluster]:
    """A primary and a standby that gives way to no query for longer than 50 ms."""
    yield from pair(request, pg_bin, "50ms")


@pytest.fixture(scope="module")
def patient(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Cluster]:
    """A primary and a standby that lets every query finish, if it can."""
    yield from pair(request, pg_bin, "-1")


def pair(request: pytest.FixtureRequest, programs: Path | None, delay: str) -> Iterator[Cluster]:
    if request.config.getoption("--test-dsn"):
        pytest.skip("this test makes servers, which --test-dsn is there to avoid")
    with Cluster(programs, primary=PRIMARY, standby=STANDBY, standby_delay=delay) as cluster:
        yield cluster


@pytest.fixture
def kind() -> str:
    return "snapshot"


@pytest.fixture
def conflict_database(request: pytest.FixtureRequest, kind: str) -> Iterator[ConflictDatabase]:
    """A database on the pair that `kind` wants, ready for it."""
    # Where recovery waits for no query, a deadlock would be a conflict over the pin before it is found.
    cluster: Cluster = request.getfixturevalue("patient" if kind == "deadlock" else "hasty")
    conflict_database = ConflictDatabase.make(cluster, f"stage_{uuid.uuid4().hex[:12]}")
    if kind == "deadlock":
        conflict_database.hold()
    if kind == "tablespace":
        conflict_database.make_tablespace()
    yield conflict_database
    conflict_database.end()


@pytest.fixture
def retry() -> RetryConfig:
    """The pauses after a conflict; a test with others is parametrized with them."""
    return CONFLICT_RETRY


@pytest.fixture
def replica(conflict_database: ConflictDatabase, retry: RetryConfig) -> Iterator[Replica]:
    """Return a replica on the standby; its lock_timeout does not affect what is tested here."""
    limits = TransactionLimits(20.0)
    replica = Replica(lambda: conflict_database.standby_dsn, connect_timeout=60.0, limits=limits, retry=retry)
    yield replica
    replica.close()


NEVER = RetryConfig(math.inf, math.inf)
single_try = pytest.mark.parametrize("retry", [NEVER], ids=["one try"])
short_pauses = pytest.mark.parametrize("retry", [RetryConfig(0.01, 5.0)], ids=["short pauses"])


def three(slow: str, **fields: Any) -> list[QueryDefinition]:
    """The slow one between two short ones; `fields` are the slow one's."""
    return [a_query("first", LOOK), a_query("slow", slow, **fields), a_query("last", LOOK)]


def rows(answer: Answer) -> list[tuple[bytes | None, ...]]:
    assert answer.rows is not None, answer.error
    return answer.rows.values


def conflict(answer: Answer) -> PollError:
    assert answer.error is not None
    assert answer.error.kind == "conflict"
    return answer.error


# --- each kind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HINTS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "alone"])
@single_try
def test_each_kind_of_conflict_is_reported_with_a_remedy(
    conflict_database: ConflictDatabase,
    replica: Replica,
    kind: str,
    shared: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the shared transaction, which is inside a savepoint, it ends the session; else only the query."""
    caplog.set_level(logging.INFO, logger="poller.telemetry.poll_log")
    fatal = shared or kind == "database"
    queries = [a_query("first", LOOK), a_query("slow", SLOW[kind], snapshot=shared)]
    queries.append(a_query("last", LOOK, snapshot=shared))
    with conflict_database.whenever(SLOW[kind], lambda: conflict_database.provoke(kind)) as pids:
        first, slow, last = replica.fetch(queries)

    ((_, _, pid),) = rows(first)
    assert [str(process).encode() for process in pids] == [pid]
    error = conflict(slow)
    ended = "terminating connection" if fatal else "canceling statement"
    assert error.conflict == kind
    assert error.message == f"{ended} due to conflict with recovery ({DETAIL[kind]})"
    assert error.sqlstate == ("57P04" if kind == "database" else "40001")
    assert conflict_database.conflicts_logged() == ["FATAL:" if fatal else "ERROR:"]
    if fatal:
        assert (conflict(last).conflict, last.duration) == (kind, 0.0), "it never came to its turn"
    elif not conflict_database.signalled_twice():
        assert rows(last)[0][2] == pid, "the connection goes on"

    PollLog().observe([to_result(slow)])
    (record,) = caplog.records
    attributes = vars(record)
    assert record.getMessage() == f"query slow failed: {error.message}"
    assert (attributes["poller.conflict"], attributes["db.response.status_code"]) == (kind, error.sqlstate)
    assert HINTS[kind] in attributes["hint"]


@pytest.mark.parametrize("kind", ["deadlock"])
@single_try
def test_a_deadlock_that_the_query_finds_before_recovery_does_ends_only_the_query(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    """It has another SQLSTATE (`CheckRecoveryConflictDeadlock` in PostgreSQL's standby.c)."""
    with conflict_database.running_into():
        first, slow, last = replica.fetch(three(LATER))
    # On a busy machine recovery still waits when the next query runs, and cancels that as well.
    if conflict_database.conflicts_logged() == ["ERROR:"]:
        assert rows(first) == rows(last)
    else:
        assert conflict_database.conflicts_logged() == ["ERROR:", "ERROR:"]
        assert conflict(last).conflict == "deadlock"
    error = conflict(slow)
    assert (error.conflict, error.sqlstate) == ("deadlock", "40P01")
    assert error.message == f"canceling statement due to conflict with recovery ({DETAIL['deadlock']})"


@pytest.mark.parametrize("kind", [kind for kind in HINTS if kind != "database"])
def test_after_one_conflict_of_any_kind_the_whole_tick_is_answered_from_one_new_snapshot(
    conflict_database: ConflictDatabase, replica: Replica, kind: str
) -> None:
    slow = SLOW[kind].replace("count(*) AS n", f"{SEEN}, count(*) AS n")
    with conflict_database.whenever(slow, lambda: conflict_database.provoke_once(kind)) as pids:
        first, middle, last = replica.fetch(three(slow))

    ((snapshot, dead, pid),) = rows(first)
    assert rows(last) == [(snapshot, dead, pid)]
    assert rows(middle)[0][:3] == (snapshot, dead, pid)
    assert dead == (b"19" if kind == "snapshot" else b"20"), "after what recovery had to do"
    assert pid not in [str(process).encode() for process in pids], "a new connection"
    assert len(conflict_database.conflicts_logged()) == len(pids) == 1


def test_a_dropped_database_is_missing_at_the_retry_and_earlier_answers_stay(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    with conflict_database.whenever(SLOW["database"], lambda: conflict_database.provoke("database")):
        first, *others = replica.fetch(three(SLOW["database"]))
    assert rows(first)
    for answer in others:
        assert answer.error is not None
        assert (answer.error.kind, answer.error.unsent) == ("unavailable", True)
        assert "does not exist" in answer.error.message


# --- how often ----------------------------------------------------------------------------------------


def test_a_query_that_conflicts_repeatedly_is_finally_run_alone_and_fails_alone(
    conflict_database: ConflictDatabase, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    """And there is never more than one connection."""
    caplog.set_level(logging.DEBUG, logger="poller.postgres.replica")
    with (
        Watch(conflict_database.cluster.standby.dsn()) as watch,
        conflict_database.whenever(
            SLOW["snapshot"], lambda: conflict_database.provoke("snapshot"), math.inf
        ) as pids,
    ):
        first, slow, last = replica.fetch(three(SLOW["snapshot"]))
    assert rows(first) == rows(last)
    assert conflict(slow).conflict == "snapshot"
    assert conflict(slow).message.startswith("canceling statement")
    assert conflict_database.conflicts_logged() == ["FATAL:"] * TRIES_TOGETHER + ["ERROR:"]
    assert len(set(pids)) == len(pids) == TRIES_TOGETHER + 1
    assert len(caplog.records) == TRIES_TOGETHER, "no pause after the last try"
    assert watch.most == 1


@single_try
def test_a_query_that_conflicted_is_sent_last_until_it_is_answered(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    """So that even without time for another try it costs the others one tick at most."""
    queries = three(SLOW["snapshot"])
    with conflict_database.whenever(
        SLOW["snapshot"], lambda: conflict_database.provoke("snapshot"), math.inf
    ):
        assert [answer.error is None for answer in replica.fetch(queries)] == [True, False, False]
        for _ in range(2):
            assert [answer.error is None for answer in replica.fetch(queries)] == [True, False, True]
    conflict_database.open_gate()
    conflict_database.replayed()
    orders: list[list[str]] = [[], []]
    for order in orders:
        assert all(map(rows, replica.fetch(queries, order.append)))
    assert orders == [["first", "last", "slow"], ["first", "slow", "last"]]


def test_no_try_is_made_when_its_pause_would_end_after_half_of_the_shortest_interval(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    queries = [a_query("often", LOOK, interval=1), a_query("slow", SLOW["snapshot"])]
    with conflict_database.whenever(
        SLOW["snapshot"], lambda: conflict_database.provoke("snapshot"), math.inf
    ) as pids:
        often, slow = replica.fetch(queries)
    assert rows(often)
    assert conflict(slow).conflict == "snapshot"
    assert len(conflict_database.conflicts_logged()) == len(pids) == 1


def test_a_try_that_ends_after_half_of_the_shortest_interval_is_the_last(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    began = time.monotonic()

    def provoke() -> None:
        # Its first try ends at once, its second when half of the interval is over.
        assert not pids[1:] or eventually(lambda: time.monotonic() > began + 4)
        conflict_database.provoke("snapshot")

    with conflict_database.whenever(SLOW["snapshot"], provoke, math.inf) as pids:
        often, slow = replica.fetch([a_query("often", LOOK, interval=8), a_query("slow", SLOW["snapshot"])])
    assert rows(often)
    assert conflict(slow).conflict == "snapshot"
    assert len(conflict_database.conflicts_logged()) == len(pids) == 2


@pytest.mark.parametrize("retry", [RetryConfig(100.0, 100.0)], ids=["long pauses"])
def test_an_interrupt_ends_the_pause_between_two_tries(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    answers: list[Answer] = []
    asking = threading.Thread(
        target=lambda: answers.extend(replica.fetch(three(SLOW["snapshot"]))), daemon=True
    )

    def pausing() -> bool:
        frame = sys._current_frames().get(asking.ident or 0)  # noqa: SLF001 - what a debugger looks at
        return frame is not None and frame.f_code is CancelToken.wait.__code__

    with conflict_database.whenever(
        SLOW["snapshot"], lambda: conflict_database.provoke("snapshot"), math.inf
    ) as pids:
        asking.start()
        assert eventually(pausing)
        replica.interrupt()
        asking.join(50.0)
    assert not asking.is_alive()
    first, *others = answers
    assert rows(first)
    assert [conflict(answer).conflict for answer in others] == ["snapshot", "snapshot"]
    assert len(pids) == 1


NEEDS_A_LOOK = {"extensions": ["plpgsql"]}
"""A requirement for which the opening of a tick looks at pg_extension."""

# --- where it comes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("open_before", "retry"),
    [(True, NEVER), (False, CONFLICT_RETRY)],
    ids=["open connection", "new connection"],
)
def test_a_conflict_while_the_tick_is_opened_is_retried(
    conflict_database: ConflictDatabase, replica: Replica, open_before: bool
) -> None:
    """On an open connection at once, as nothing has run yet; on a new one after the pause."""
    if open_before:
        assert rows(replica.fetch([a_query("before")])[0])
    queries = [a_query("first", LOOK, requires=NEEDS_A_LOOK), a_query("last", LOOK)]
    with conflict_database.opening(facts_query(queries)) as pids:
        first, last = replica.fetch(queries)
    assert rows(first) == rows(last)
    assert rows(first)[0][2] not in [str(pid).encode() for pid in pids]
    assert conflict_database.conflicts_logged() == ["ERROR:"]


@single_try
def test_a_conflict_while_the_tick_is_opened_is_no_querys_own(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    queries = [a_query("first", LOOK, requires=NEEDS_A_LOOK), a_query("last", LOOK)]
    with conflict_database.opening(facts_query(queries)):
        answers = replica.fetch(queries)
    assert [(conflict(answer).conflict, conflict(answer).unsent) for answer in answers] == [
        ("snapshot", True)
    ] * 2


@short_pauses
def test_a_conflict_outside_of_the_snapshot_is_retried_without_the_others(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    queries = three(SLOW["snapshot"], snapshot=False)
    reported: list[str] = []
    with conflict_database.whenever(SLOW["snapshot"], lambda: conflict_database.provoke_once("snapshot")):
        answers = replica.fetch(queries, reported.append)
    assert all(map(rows, answers))
    assert reported == ["first", "last", "slow", "slow"]


@short_pauses
def test_a_query_outside_of_the_snapshot_that_conflicts_again_and_again_fails_alone(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    queries = three(SLOW["snapshot"], snapshot=False)
    queries.append(a_query("after", LOOK, snapshot=False))
    reported: list[str] = []
    with conflict_database.whenever(
        SLOW["snapshot"], lambda: conflict_database.provoke("snapshot"), math.inf
    ) as pids:
        first, slow, last, after = replica.fetch(queries, reported.append)
    assert rows(first) == rows(last)
    assert rows(after)
    assert conflict(slow).conflict == "snapshot"
    assert len(pids) == TRIES_TOGETHER + 1
    if not conflict_database.signalled_twice():
        assert reported == ["first", "last", "slow", "after", *["slow"] * TRIES_TOGETHER]
        assert len(set(pids)) == 1, "none of them ends the session"


@short_pauses
def test_a_conflict_in_the_snapshot_asks_again_what_was_to_follow_outside_of_it(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    queries = [*three(SLOW["snapshot"]), a_query("after", LOOK, snapshot=False)]
    with conflict_database.whenever(SLOW["snapshot"], lambda: conflict_database.provoke_once("snapshot")):
        first, slow, last, after = replica.fetch(queries)
    assert rows(first) == rows(last)
    assert rows(slow)
    assert rows(after)[0][2] == rows(first)[0][2]


def test_an_inspection_is_repeated_after_a_conflict(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    slow = SLOW["snapshot"]
    with conflict_database.whenever(slow, lambda: conflict_database.provoke_once("snapshot")) as pids:
        value = inspect(replica.opener, lambda inspection: inspection.value(slow))
    assert value
    assert len(conflict_database.conflicts_logged()) == len(pids) == 1


def test_an_inspection_fails_after_its_last_conflict(
    conflict_database: ConflictDatabase, replica: Replica
) -> None:
    slow = SLOW["snapshot"]
    with (
        conflict_database.whenever(slow, lambda: conflict_database.provoke("snapshot"), math.inf) as pids,
        pytest.raises(PollError, match="due to conflict with recovery"),
    ):
        inspect(replica.opener, lambda inspection: inspection.value(slow))
    assert len(conflict_database.conflicts_logged()) == len(pids) == TRIES_TOGETHER


# --- end to end ---------------------------------------------------------------------------------------


def test_the_daemon_counts_and_logs_the_conflicts_kind_and_recovers(
    conflict_database: ConflictDatabase,
    receiver: Receiver,
    poller_process: Callable[..., Process],
    tmp_path: Path,
) -> None:
    folder = write_queries(tmp_path, ("quick", "SELECT count(*) AS n FROM dead"), ("slow", SLOW["lock"]))
    environment = {
        "POLLER_DATABASE_URL": conflict_database.standby_dsn,
        "POLLER_QUERIES": folder,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_EXPORT_INTERVAL": "300ms",
        "POLLER_LOG_FORMAT": "json",
    }
    with conflict_database.whenever(SLOW["lock"], lambda: conflict_database.provoke("lock"), math.inf):
        process = poller_process("run", env=environment)
        receiver.wait_for(
            lambda points: [
                point
                for point in points
                if point.metric == "poller.polls"
                and point.attributes
                == {
                    "poller.query.name": "slow",
                    "poller.state": "failed",
                    "error.type": "conflict",
                    "db.response.status_code": "40001",
                    "poller.conflict": "lock",
                }
            ]
        )
        process.wait_for_line(r'"query slow failed: .*relation lock.*max_standby_streaming_delay')
    conflict_database.open_gate()
    receiver.wait_for(lambda points: [point for point in points if point.metric == "slow_count"])

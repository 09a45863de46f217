"""Statements that are sent together on a connection, with a separate answer for each statement."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from poller.model.errors import PollError
from poller.model.rows import Limit
from poller.postgres.cancellation import CancelToken
from poller.postgres.pipeline import Pipeline, Reply, Statement
from tests.bed.postgres import Database
from tests.bed.process import eventually
from tests.bed.proxy import Proxy

pytestmark = pytest.mark.every_version


@pytest.fixture
def pipeline(connection: psycopg.Connection, cancel_token: CancelToken) -> Pipeline:
    return Pipeline(connection, cancel_token)


def statements(*sql: str, patience: float = 30.0) -> list[Statement]:
    return [Statement(text, patience) for text in sql]


def outcome(reply: Reply) -> object:
    """Return the rows of a reply, or the SQLSTATE of its error."""
    if reply.error is not None:
        assert reply.rows is None
        return reply.error.sqlstate
    assert reply.rows is not None
    return reply.rows.values


def active(database: Database, like: str) -> int:
    ((count,),) = database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
        f"AND query LIKE '{like}'"
    )
    return int(count)


def test_each_statement_has_its_own_answer_in_order(pipeline: Pipeline) -> None:
    replies = pipeline.send(
        statements("SELECT 1", "SELECT 1/0", "", "SELECT nope", "SET x.y = 1", "SELECT 2")
    )
    assert [outcome(reply) for reply in replies] == [[(b"1",)], "22012", [], "42703", [], [(b"2",)]]


def test_consecutive_pipelines_use_the_same_connection(
    connection: psycopg.Connection, cancel_token: CancelToken
) -> None:
    for n in (1, 2, 3):
        assert [
            outcome(reply) for reply in Pipeline(connection, cancel_token).send(statements(f"SELECT {n}"))
        ] == [[(str(n).encode(),)]]
    assert connection.execute("SELECT 4").fetchone() == (4,)


def test_a_hang_is_not_reported_as_an_exhausted_budget(
    database: Database, cancel_token: CancelToken, make_proxy: Callable[[int], Proxy]
) -> None:
    """The budget ends shortly before the patience, and long after the server should have answered."""
    proxy = make_proxy(int(str(conninfo_to_dict(database.primary_dsn)["port"])))
    with psycopg.connect(proxy.dsn(database.primary_dsn), autocommit=True) as connection:
        proxy.hang()
        with pytest.raises(PollError) as caught:
            list(
                Pipeline(connection, cancel_token).send([Statement("SELECT 1", 1.0, timeout=0.2)], budget=0.9)
            )
        proxy.resume()
    assert caught.value.kind == "unavailable"
    assert "hangs" in (caught.value.hint or "")


def test_several_statements_in_a_single_text_are_refused(pipeline: Pipeline, database: Database) -> None:
    (reply,) = pipeline.send(statements("SELECT 1; COMMIT; CREATE TABLE x ()"))
    assert outcome(reply) == "42601"
    assert database.execute("SELECT to_regclass('x')") == [(None,)]


def test_rows_beyond_the_limit_are_counted_and_discarded(pipeline: Pipeline) -> None:
    sent = [Statement("SELECT generate_series(1, 1000)", 30, Limit(300)), *statements("SELECT 1")]
    bounded, after = pipeline.send(sent)
    assert bounded.rows is not None
    assert (len(bounded.rows.values), bounded.rows.beyond) == (300, 700)
    assert bounded.rows.values[299] == (b"300",)
    assert outcome(after) == [(b"1",)]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 1000])
def test_a_result_is_complete_for_every_size_of_its_pieces(pipeline: Pipeline, count: int) -> None:
    (reply,) = pipeline.send([Statement(f"SELECT generate_series(1, {count}) AS n", 30, Limit(1000))])
    assert reply.rows is not None
    assert [column.name for column in reply.rows.columns] == ["n"]
    assert reply.rows.values == [(str(n).encode(),) for n in range(1, count + 1)]
    assert reply.rows.beyond == 0


def test_a_query_that_fails_after_its_first_rows_has_no_rows(pipeline: Pipeline) -> None:
    reply, after = pipeline.send(
        statements("SELECT 1 / (600 - n) FROM generate_series(1, 1000) n", "SELECT 1")
    )
    assert outcome(reply) == "22012"
    assert outcome(after) == [(b"1",)]


def test_statements_larger_than_every_buffer_wait_for_a_slow_query_within_its_timeout(
    pipeline: Pipeline,
) -> None:
    large = f"SELECT length('{'x' * 60_000}')"
    sent = [
        Statement("SELECT 0", 1.0),  # its patience must not limit the sending
        Statement("SELECT pg_sleep(2)", 30.0),
        *[Statement(large, 30.0) for _ in range(400)],
    ]
    replies = list(pipeline.send(sent))
    assert all(reply.error is None for reply in replies)
    assert [outcome(reply) for reply in replies[2:]] == [[(b"60000",)]] * 400


def test_statements_and_replies_larger_than_every_buffer_do_not_block_each_other(pipeline: Pipeline) -> None:
    sql = f"SELECT repeat('y', 60000) FROM generate_series(1, 5) -- {'x' * 60_000}"
    replies = list(pipeline.send(statements(*[sql] * 200)))
    assert len(replies) == 200
    assert all(reply.rows and len(reply.rows.values) == 5 for reply in replies)


def test_the_message_includes_the_detail_and_the_error_has_the_servers_hint(pipeline: Pipeline) -> None:
    (reply,) = pipeline.send(
        statements("DO $$BEGIN RAISE 'm' USING detail = 'd', hint = 'h', errcode = 'AB123'; END$$")
    )
    assert reply.error is not None
    assert (reply.error.message, reply.error.hint, reply.error.sqlstate) == ("m (d)", "h", "AB123")


def test_a_timeout_and_a_cancellation_are_different_errors(
    database: Database, connection: psycopg.Connection, cancel_token: CancelToken
) -> None:
    connection.execute("SET statement_timeout = '200ms'")
    (late,) = Pipeline(connection, cancel_token).send([Statement("SELECT pg_sleep(20)", 30, timeout=0.2)])
    assert late.error is not None
    assert (late.error.kind, late.error.sqlstate) == ("timeout", "57014")
    connection.execute("SET statement_timeout = '60s'")

    def cancel() -> None:
        assert eventually(lambda: active(database, "SELECT pg_sleep(21)") == 1)
        database.execute(f"SELECT pg_cancel_backend({connection.info.backend_pid})")

    canceller = threading.Thread(target=cancel)
    canceller.start()
    (cancelled,) = Pipeline(connection, cancel_token).send([Statement("SELECT pg_sleep(21)", 60, timeout=60)])
    canceller.join()
    assert cancelled.error is not None
    assert (cancelled.error.kind, cancelled.error.sqlstate) == ("cancelled", "57014")


def test_copy_ends_the_run_and_the_connection_instead_of_hanging(
    pipeline: Pipeline, connection: psycopg.Connection
) -> None:
    replies = pipeline.send(statements("SELECT 1", "COPY (SELECT 1) TO STDOUT", "SELECT 2"))
    assert outcome(next(replies)) == [(b"1",)]
    with pytest.raises(PollError):
        next(replies)
    assert connection.closed


def test_a_server_that_does_not_answer_is_abandoned_after_the_patience(
    pipeline: Pipeline, connection: psycopg.Connection, database: Database
) -> None:
    replies = pipeline.send(
        [*statements("SELECT 1"), Statement("SELECT pg_sleep(31)", 0.3), *statements("SELECT pg_sleep(32)")]
    )
    assert outcome(next(replies)) == [(b"1",)]
    with pytest.raises(PollError, match="did not answer in time") as caught:
        next(replies)
    assert (caught.value.kind, caught.value.sqlstate) == ("unavailable", None)
    assert connection.closed
    assert eventually(lambda: active(database, "SELECT pg_sleep(3_)") == 0)


def test_a_reader_that_stops_early_leaves_no_answers_and_no_running_query(
    pipeline: Pipeline, connection: psycopg.Connection, database: Database
) -> None:
    replies = pipeline.send(statements("SELECT 1", "SELECT pg_sleep(33)", "SELECT pg_sleep(34)"))
    assert outcome(next(replies)) == [(b"1",)]
    replies.close()
    assert connection.closed
    assert eventually(lambda: active(database, "SELECT pg_sleep(3_)") == 0)


def test_a_token_that_was_cancelled_before_ends_a_run_at_once(
    pipeline: Pipeline, cancel_token: CancelToken, connection: psycopg.Connection
) -> None:
    cancel_token.cancel()
    with pytest.raises(PollError) as caught:
        list(pipeline.send(statements("SELECT pg_sleep(35)")))
    assert caught.value.kind == "cancelled"
    assert connection.closed


def test_a_token_may_be_cancelled_and_closed_again_after_its_end() -> None:
    cancel_token = CancelToken()
    cancel_token.close()
    cancel_token.cancel()
    cancel_token.close()
    assert cancel_token.raised

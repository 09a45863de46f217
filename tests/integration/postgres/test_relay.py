"""The relay passes on a limited number of bytes at a time and returns the server's socket."""

from __future__ import annotations

import os
import resource
import select
import socket
import struct
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from poller.model.errors import PollError
from poller.postgres.cancellation import CancelToken
from poller.postgres.pipeline import Pipeline, Statement
from poller.postgres.relay import PIECE_BYTES, Relay

DATA_SEGMENTS_SENT = 156
"""Offset of tcpi_data_segs_out in Linux's tcp_info."""


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def file_of(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


def wait_for(relay: Relay) -> None:
    assert select.select([relay], [], [], 30.0)[0]


def test_each_read_passes_on_a_piece_of_a_message_and_the_whole_message_arrives(
    connection: psycopg.Connection,
) -> None:
    size = 20 * PIECE_BYTES
    pgconn = connection.pgconn
    with closing(Relay(pgconn)) as relay:
        pgconn.send_query_params(f"SELECT repeat('x', {size})".encode(), None)
        assert not relay.flush()
        pieces = []
        while pgconn.is_busy():
            wait_for(relay)
            pieces.append(relay.receive())
        result = pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"x" * size
        assert pgconn.get_result() is None
    assert max(pieces) <= PIECE_BYTES
    assert sum(pieces) >= size
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_connection_has_its_own_socket_after_a_run_and_nothing_stays_open(
    connection: psycopg.Connection, cancel_token: CancelToken
) -> None:
    before = file_of(connection.fileno()), open_descriptors()
    pipeline = Pipeline(connection, cancel_token)
    for reply in pipeline.send([Statement("SELECT 1", 60.0)]):
        assert reply.rows
        assert file_of(connection.fileno()) != before[0]
    assert (file_of(connection.fileno()), open_descriptors()) == before
    replies = pipeline.send([Statement("SELECT 1", 60.0)] * 2)
    next(replies)
    replies.close()
    assert connection.closed
    assert open_descriptors() == before[1] - 1


def test_a_descriptor_with_the_number_of_a_closed_connection_is_not_touched(
    connection: psycopg.Connection,
) -> None:
    number = connection.fileno()
    with closing(Relay(connection.pgconn)):
        connection.close()
        other = os.open("/dev/null", os.O_RDONLY)
        os.dup2(other, number)
        before = file_of(number)
    assert file_of(number) == before
    os.close(number)
    if other != number:
        os.close(other)


def test_a_connection_with_half_a_message_sent_is_not_used_again(connection: psycopg.Connection) -> None:
    pgconn = connection.pgconn
    with closing(Relay(pgconn)):
        pgconn.send_query_params(b"SELECT 1", None)
    with pytest.raises(psycopg.OperationalError):
        pgconn.consume_input()
    assert connection.closed


@pytest.mark.parametrize("free", [0, 1, 2])
def test_too_few_free_descriptors_are_reported(
    connection: psycopg.Connection, cancel_token: CancelToken, free: int
) -> None:
    pipeline = Pipeline(connection, cancel_token)
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors) + 1, hard))
    try:
        for descriptor in descriptors[:free]:
            os.close(descriptor)
        with pytest.raises(PollError, match="cannot open a socket: Too many open files") as caught:
            list(pipeline.send([Statement("SELECT 1", 60.0)]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in descriptors[free:]:
            os.close(descriptor)
    assert caught.value.kind == "unavailable"
    assert connection.closed
    assert open_descriptors() == before - 1


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux counts segments")
def test_statements_are_sent_in_full_segments(
    connection: psycopg.Connection, cancel_token: CancelToken
) -> None:
    """libpq flushes at every Sync, and its socket has TCP_NODELAY: each statement would be a packet."""
    sent = [Statement("SELECT 1", 60.0)] * 500
    with socket.socket(fileno=os.dup(connection.fileno())) as server:

        def segments() -> int:
            info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            (count,) = struct.unpack_from("I", info, DATA_SEGMENTS_SENT)
            return int(count)

        before = segments()
        assert all(reply.rows for reply in Pipeline(connection, cancel_token).send(sent))
        assert 0 < segments() - before <= 20
